"""The blocks of the course: its notebooks, its exercises, and the bank of questions."""

from lab.course.outline import exercise_table, notebook_table
from lab.course.quiz_bank import quiz_page

BLOCKS = {
    "course-notebooks": notebook_table,
    "course-exercises": exercise_table,
    "quiz-bank": quiz_page,
}
