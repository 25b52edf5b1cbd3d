"""The pieces of a benchmark: each is some works on one size. Plans put many pieces in the order in which
they are measured.
"""

from dataclasses import dataclass

from lab.benchmarks.amounts import LAPTOP_AMOUNTS, USUAL_AMOUNTS, Amounts
from lab.benchmarks.foreign_process import FOREIGN_SETTINGS
from lab.benchmarks.trl_settings import TRL_SETTINGS
from lab.errors import LabError, unknown
from lab.experiments.costs import shape_of

WORKS = ("dpo", "ipo", "kto", "grpo", "decode", "padding")
"""Names of the works: updates of a method, sampling alone, and the cost of padding."""
PEERS = ("trl", *FOREIGN_SETTINGS)
CHECKPOINTING = ("off", "on", "both")


@dataclass(frozen=True)
class Piece:
    """Works on one size of model, by the lab and, unless `peer` is empty, by a peer.

    `checkpointing` chooses the sides by gradient checkpointing: "off", "on" or "both". TRL's default
    setting, which has it on, is always tried. `settings` names the settings of the peer; empty
    stands for all of them. `peer_python` is the interpreter of a peer's own environment. `amounts`:
    how much an update of a model with random weights gets.
    """

    works: tuple[str, ...]
    size: str
    checkpointing: str = "off"
    peer: str = ""
    settings: tuple[str, ...] = ()
    peer_python: str = ""
    amounts: Amounts = USUAL_AMOUNTS

    def require_known(self) -> None:
        """Raises `LabError` for an unknown name, and for a peer without its interpreter."""
        for name in self.works:
            if name not in WORKS:
                raise unknown("work", name, list(WORKS))
        shape_of(self.size)
        if self.checkpointing not in CHECKPOINTING:
            raise unknown("checkpointing", self.checkpointing, list(CHECKPOINTING))
        if self.peer and self.peer not in PEERS:
            raise unknown("peer", self.peer, list(PEERS))
        if (self.peer in FOREIGN_SETTINGS) != bool(self.peer_python):
            raise LabError(
                f"--peer {self.peer} needs --peer-python, the Python of an environment that has"
                f" {self.peer}."
                if self.peer in FOREIGN_SETTINGS
                else f"--peer-python is '{self.peer_python}', but only the peers"
                f" {' and '.join(FOREIGN_SETTINGS)} have an environment of their own. Leave it out."
            )
        known = known_settings(self.peer)
        for name in self.settings:
            if name not in known:
                raise unknown("setting", name, known)


def known_settings(peer: str) -> list[str]:
    """Returns the names of a peer's settings."""
    if peer in FOREIGN_SETTINGS:
        return list(FOREIGN_SETTINGS[peer])
    names = [name for settings in TRL_SETTINGS.values() for name in settings] if peer else []
    return list(dict.fromkeys(names))


_BOTH, _OTHERS = ("dpo", "grpo", "decode"), ("ipo", "kto")
_LAB = tuple(Piece(_BOTH, size, "both") for size in ("8b", "1.2b", "135m"))
_BEST, _BEST_WITH = (
    "reference precomputed, fused kernels",
    "checkpointing, reference precomputed, fused kernels",
)
_GPU = (
    *_LAB,
    Piece(("dpo",), "1.2b", "both", "trl"),
    Piece(("dpo",), "8b", "both", "trl", ("default", "reference precomputed", _BEST_WITH)),
    *(Piece(_OTHERS, size) for size in ("1.2b", "135m", "8b")),
    Piece(("grpo",), "1.2b", "both", "trl", ("default", "fused kernels")),
    Piece(("dpo",), "8b", "both", "trl", (_BEST, "no checkpointing")),
    Piece(("ipo", "kto"), "1.2b", "both", "trl", ("default", "reference precomputed", _BEST)),
    Piece(("dpo",), "135m", "both", "trl", ("default", "reference precomputed", _BEST)),
    Piece(("grpo",), "8b", "both", "trl", ("default", "checkpointing, fused kernels")),
    *(Piece(_OTHERS, size, "both") for size in ("8b", "1.2b", "135m")),
    Piece(("decode",), "1.2b", "off", "trl", ("default", "adapter merged")),
    Piece(("grpo",), "135m", "both", "trl", ("default", "fused kernels")),
    Piece(("padding",), "1.2b", "off", "trl"),
)
PLANS: dict[str, tuple[Piece, ...]] = {
    "gpu": _GPU,
    "lab": tuple(piece for piece in _GPU if not piece.peer),
    "scaling": (Piece(("dpo", "grpo"), "1.2b"), Piece(("dpo",), "8b")),
    "laptop": (
        Piece(
            ("dpo", "grpo"),
            "135m",
            peer="trl",
            settings=("default", "reference precomputed", "no checkpointing"),
            amounts=LAPTOP_AMOUNTS,
        ),
    ),
}
"""The plans: one GPU, what matters most first; the same without TRL; the works for several GPUs; what
a laptop without a GPU can train.
"""


@dataclass(frozen=True)
class Request:
    """The request of the command line: one plan, or works on sizes."""

    works: tuple[str, ...] = WORKS
    sizes: tuple[str, ...] = ("embedded",)
    checkpointing: str = "off"
    peer: str = ""
    settings: tuple[str, ...] = ()
    peer_python: str = ""
    plan: str = ""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces in their order. Raises `LabError` for an unknown plan."""
        if self.plan:
            if self.plan not in PLANS:
                raise unknown("plan", self.plan, list(PLANS))
            return PLANS[self.plan]
        return tuple(
            Piece(self.works, size, self.checkpointing, self.peer, self.settings, self.peer_python)
            for size in self.sizes
        )

    def command(self, rounds: int, out: str) -> str:
        """Returns the command that asks for this, without the paths of this machine."""
        words = (
            {"plan": self.plan, "rounds": str(rounds)}
            if self.plan
            else {
                "works": ",".join(self.works),
                "sizes": ",".join(self.sizes),
                "checkpointing": self.checkpointing if self.checkpointing != "off" else "",
                "rounds": str(rounds),
                "peer": self.peer,
                "settings": f'"{"; ".join(self.settings)}"' if self.settings else "",
                "peer-python": "PATH" if self.peer_python else "",
            }
        )
        named = {**words, "out": out}
        return "python -m lab bench" + "".join(f" --{k} {v}" for k, v in named.items() if v)
