"""What is wrong with an installation, where, and what to do: facts in, findings out."""

from porterlb.core.doctor.examine import examine
from porterlb.core.doctor.facts import Facts
from porterlb.core.doctor.finding import Check, Finding, Severity, verdict

__all__ = ["Check", "Facts", "Finding", "Severity", "examine", "verdict"]
