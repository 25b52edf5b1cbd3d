"""Python and the pages' scripts write a number equally, with the digits that these anchors have."""

from lab.config.number_text import number_text, signed_number
from lab.dashboard.components.js_component import COMPONENTS_FOLDER

SHORT = {
    0.0: "0",
    8: "8",
    0.1: "0.1",
    -3.25: "-3.25",
    0.0001: "0.0001",
    0.00002: "2e-5",
    0.000012345678: "1.235e-5",
    0.000099996: "0.0001",
    0.78125: "0.7813",  # 25 of 32: the half is rounded away from zero
    -0.78125: "-0.7813",
    1234.5: "1235",
    12345.0: "12345",
    9999.6: "1e4",
    23456.7: "2.346e4",
    1e-10: "1e-10",
    2.5e15: "2.5e15",
    1 / 3: "0.3333",
}
SIGNED = {
    0.0: "0",
    0.004: "0",
    -0.004: "0",
    0.005000001: "+0.01",
    1.125: "+1.13",
    -1.125: "−1.13",
    -12.0: "−12.00",
    0.5: "+0.50",
}


def test_numbers_have_one_text_in_python_and_in_the_browser(page):
    script = (COMPONENTS_FOLDER / "js_component.js").read_text("utf-8")

    def texts(name, values):
        return page.evaluate(
            f"(values) => {{ {script}; return values.map({name}); }}", list(map(float, values))
        )

    assert [number_text(value) for value in SHORT] == [*SHORT.values()]
    assert texts("numberText", SHORT) == [*SHORT.values()]
    assert [signed_number(value) for value in SIGNED] == [*SIGNED.values()]
    assert texts("signedNumber", SIGNED) == [*SIGNED.values()]
    many = [
        mantissa * 10.0**power for power in range(-12, 12) for mantissa in (1.0, 1.2345, 9.9995)
    ]
    many += [n / 64 for n in range(65)] + [-n / 32 for n in range(33)]
    assert texts("numberText", many) == [number_text(value) for value in many]
    assert texts("signedNumber", many) == [signed_number(value) for value in many]


def test_no_script_of_a_page_has_a_number_format_of_its_own():
    for path in COMPONENTS_FOLDER.glob("*.js"):
        if path.name != "js_component.js":
            text = path.read_text("utf-8")
            assert "toExponential" not in text and "function numberText" not in text, path.name
