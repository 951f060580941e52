"""What a structure is called: one canonical name, and the many that people draw it under."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from medexp.errors import CaseError, ConfigurationError

HIGHEST_TARGET = "PTV70"
_TARGET = "PTV"
_REMOVED = str.maketrans("", "", "_- ")


def plain_name(name: str) -> str:
    """Return a name as it is compared: lower case, without "_", "-", spaces and "gy"."""
    return name.lower().translate(_REMOVED).replace("gy", "")


@dataclass(frozen=True)
class StructureNames:
    """The structures of a dataset in order, the other names each may have in a file, and those that a case must have.

    Raises:
        ConfigurationError: A structure is named twice, or one name stands for two.
    """

    structures: tuple[str, ...]
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that do not tell structures apart."""
        if not self.structures or len(set(self.structures)) != len(self.structures):
            raise ConfigurationError(f"dataset.structures: expected different names, got {list(self.structures)}")
        strangers = [name for name in self.aliases if name not in self.structures]
        if strangers:
            known = ", ".join(self.structures)
            message = f"dataset.aliases: expected structures of the dataset ({known}), got {', '.join(strangers)}"
            raise ConfigurationError(f"{message}; add them to dataset.structures or remove their aliases")
        strangers = [name for name in self.required if name not in self.structures]
        if strangers:
            raise ConfigurationError(f"dataset.required: expected dataset.structures, got {', '.join(strangers)}")
        self._canonical_of()

    def _canonical_of(self) -> dict[str, str]:
        """Return the structure of each plain name."""
        owners: dict[str, str] = {}
        for structure in self.structures:
            for name in (structure, *self.aliases.get(structure, ())):
                owner = owners.setdefault(plain_name(name), structure)
                if owner != structure:
                    message = f"dataset.aliases: expected '{name}' to mean one structure, got {owner} and {structure}"
                    raise ConfigurationError(f"{message}; names are compared without case, '_', '-', spaces and 'gy'")
        return owners

    def group(self, names: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
        """Return the names that each structure has in a file, in the order of the structures, and those of none."""
        owners = self._canonical_of()
        found: dict[str, list[str]] = {structure: [] for structure in self.structures}
        unmatched: list[str] = []
        for name in names:
            owner = owners.get(plain_name(name))
            (unmatched if owner is None else found[owner]).append(name)
        return {structure: members for structure, members in found.items() if members}, unmatched

    def require(self, present: Collection[str], *, unmatched: Sequence[str] = ()) -> None:
        """Refuse a case that lacks what it must have.

        Args:
            present: Canonical names.
            unmatched: Names in the file that are no structures of the dataset, for the message.

        Raises:
            CaseError: Names what is missing and what is there.
        """
        missing = [name for name in self.required if name not in present]
        if missing:
            found = ", ".join((*present, *(f"'{name}'" for name in unmatched))) or "none"
            message = f"expected {', '.join(missing)} among the structures, found {found}"
            raise CaseError(f"{message}; contour it or add the name to dataset.aliases")


def is_target(structure: str) -> bool:
    """Return whether a canonical name is that of a planning target volume."""
    return structure.startswith(_TARGET)


def case_type(present: Collection[str]) -> str:
    """Return how many levels of dose are prescribed: `single_rx`, `sib_2level`, `sib_3level`, ... or `nodal_only`.

    Without the target of the highest dose only lymph nodes are treated.
    """
    levels = sum(map(is_target, present))
    if HIGHEST_TARGET not in present:
        return "nodal_only"
    return "single_rx" if levels == 1 else f"sib_{levels}level"
