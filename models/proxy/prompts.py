"""How a question becomes the user's text, for each protocol, and what the assistant answers.

`paper` is the format of the paper's evaluation; the others are the texts that stock lmms-eval tasks send, which
`tests` compare with the stock code's own. Knows nothing of pictures.
"""

from __future__ import annotations

from models.proxy.questions import Question

LETTERS = "ABCDE"
PAPER_POST = "\nAnswer with the option's letter from the given choices directly."
HRBENCH_POST = "\nAnswer the option letter directly."
OPEN_POST = "\nAnswer with a single word or phrase."
BLINK_PRE = "Note: You only need to respond with {} without providing any additional information.\n"
BLINK_SELECT = "\nSelect from the following choices."
MME_CHOICES = " The choices are listed below:"
MME_POST = (
    "\nSelect the best answer to the above multiple-choice question based on the image. Respond with only the letter "
    "(A, B, C, D, or E) of the correct option.\nThe best answer is: "
)
SYSTEM = "You are a helpful assistant."


def _plain(options: tuple[str, ...]) -> str:
    return "".join(f"\n{LETTERS[k]}. {o}" for k, o in enumerate(options))


def _bracketed(options: tuple[str, ...]) -> str:
    return "".join(f"\n({LETTERS[k]}) {o}" for k, o in enumerate(options))


def paper(q: Question) -> str:
    """Question, 'Options:', lettered options, 'Answer with the option's letter …'."""
    return f"{q.text}\nOptions:{_plain(q.options)}{PAPER_POST}"


def mmvp(q: Question) -> str:
    """Stock MMVP and V*: no 'Options:' line."""
    return f"{q.text}{_plain(q.options)}{PAPER_POST}"


def hrbench(q: Question) -> str:
    """Stock HR-Bench."""
    return f"{q.text}{_plain(q.options)}{HRBENCH_POST}"


def blink_document(q: Question) -> str:
    """The `prompt` column of a BLINK row."""
    return f"{q.text}{BLINK_SELECT}{_bracketed(q.options)}"


def blink(q: Question) -> str:
    """Stock BLINK: the note, then the document's prompt."""
    return BLINK_PRE.format(", ".join(LETTERS[: len(q.options)])) + blink_document(q)


def mme_realworld(q: Question) -> str:
    """Stock MME-RealWorld."""
    return f"{q.text}{MME_CHOICES}{_bracketed(q.options)}{MME_POST}"


def open_ended(q: Question) -> str:
    """No options: the answer is a word or phrase. Used in pretraining only."""
    return q.text + OPEN_POST


LETTER_PROMPTS = {"paper": paper, "mmvp": mmvp, "hrbench": hrbench, "blink": blink, "mme_realworld": mme_realworld}


def answer(text: str) -> str:
    """The assistant's words around a letter or phrase."""
    return f"<answer> {text} </answer>"


def reminders(options: int) -> list[str]:
    """Every fixed sentence of the prompts, for the tokenizer: each becomes one token."""
    return [
        PAPER_POST, HRBENCH_POST, OPEN_POST, BLINK_SELECT, MME_CHOICES, MME_POST, "\nOptions:",
        *(BLINK_PRE.format(", ".join(LETTERS[:k])) for k in range(2, options + 1)),
    ]
