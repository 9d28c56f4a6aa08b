"""Budgets that calls find by themselves, since they are begun inside one: `AsyncClient.budget`.

What is counted, and when it is enough, stands in `sansio.budget`.
"""

from contextvars import ContextVar
from types import TracebackType
from typing import Self

from ernie_async.net.roster import Roster
from ernie_async.sansio.budget import Charge, Tally
from ernie_async.sansio.ledger import Ledger
from ernie_async.sansio.rest import Request
from ernie_async.sansio.tokens import estimate_prompt

__all__ = ["Budget", "budgets_of", "charge_of"]

# Tasks begun inside a block have it, too: a task copies the context that it is begun in.
_entered: ContextVar[tuple["Budget", ...]] = ContextVar("ernie_async_budgets", default=())


class Budget(Tally):
    """What calls may use together, from `AsyncClient.budget`. Use it in `async with` or `with`.

    Counts what the client's calls use that are begun inside the block, in tasks begun there too,
    for as long as they run. Blocks may be nested: inner calls count for all of them. One budget may
    be entered again, also by several tasks at a time, and goes on where it was.

    Attributes:
        tokens: Used so far, prompts and answers; an estimate for what is under way.
        limit_tokens: What was given; `None` for no limit.
        limit_cost: What was given; `None` for no limit.
    """

    __slots__ = ("roster",)

    def __init__(self, roster: Roster, *, tokens: int | None, cost: float | None) -> None:
        super().__init__(tokens=tokens, cost=cost)
        self.roster: Roster = roster  # of the client whose calls count

    def __enter__(self) -> Self:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # By hand, since a token of the variable is of no use where a fixture is left in another
        # context than it was entered in.
        entered = list(_entered.get())
        if self in entered:
            entered.reverse()
            entered.remove(self)
            _entered.set(tuple(reversed(entered)))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return (
            f"Budget(tokens={self.tokens} of {self.limit_tokens}, "
            f"cost={self.cost:.4g} of {self.limit_cost})"
        )


def budgets_of(roster: Roster) -> tuple[Budget, ...]:
    """The budgets that a call begun here and now counts for, each once."""
    entered = _entered.get()
    if not entered:
        return entered
    return tuple(dict.fromkeys(budget for budget in entered if budget.roster is roster))


def charge_of(roster: Roster, ledger: Ledger, request: Request) -> Charge | None:
    """The account of a call that begins here and now; `None` outside of any budget.

    Raises:
        BudgetError: A budget is spent already.
        ConfigError: One counts money, and the model has no price.
    """
    budgets = budgets_of(roster)
    if not budgets:
        return None
    estimate = estimate_prompt(request.messages)
    tokens = ledger.correction.corrected(request.model, estimate)
    return Charge(budgets, ledger.prices, request.model, tokens)
