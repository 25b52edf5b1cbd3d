"""What MkDocs calls while it builds the site; mkdocs.yml names this file under `hooks`."""

import logging

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from lab.errors import LabError

STREAMLIT_WARNINGS = ("scriptrunner_utils.script_run_context", "caching.cache_data_api")


def on_startup(command: str, dirty: bool) -> None:
    """Silence what Streamlit says when functions of the dashboard are used outside of it."""
    for module in STREAMLIT_WARNINGS:
        logging.getLogger(f"streamlit.runtime.{module}").addFilter(
            lambda record: record.levelno > logging.WARNING
        )


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the notebooks and of the live figures, and the files that these need."""
    from lab.site.made_files import made_files  # imports the dashboard, after `on_startup`

    for path, content in made_files():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Describe the live figures of a page. Raises `PluginError` if one of them does not exist."""
    from lab.site.made_files import with_descriptions

    try:
        return with_descriptions(markdown, page.file.src_uri)
    except LabError as error:
        raise PluginError(str(error)) from error
