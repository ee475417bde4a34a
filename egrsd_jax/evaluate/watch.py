"""What held-out evaluations say about a run while it trains: alarms, and which checkpoints are worth keeping. Pure."""

from collections.abc import Sequence

from egrsd_jax.evaluate.held_out import Evaluation, paired_difference

CLEARLY = 2.0  # standard errors of a paired difference
SHORTEST, LONGEST = 0.7, 1.5  # of the length at the start, where accuracy has not clearly risen

History = Sequence[tuple[int, Evaluation]]  # steps with their evaluations, the start first


def alarms(history: History) -> list[str]:
    """What is wrong with the newest evaluation, against the first: nothing, or a line each.

    Accuracy that is lower by more than two standard errors of the paired difference; and a mean length outside 70% to
    150% of the first one's where accuracy is not higher by as much. Raises ValueError where there is no evaluation.
    """
    if not history:
        raise ValueError("there is no evaluation to look at")
    (start, first), (step, newest) = history[0], history[-1]
    change = paired_difference(first, newest)
    margin = CLEARLY * change["accuracy_error"]
    found = []
    if change["accuracy"] < -margin:
        found.append(
            f"accuracy at step {step} is {100 * newest.accuracy:.1f}%, {-100 * change['accuracy']:.1f} ± "
            f"{100 * change['accuracy_error']:.1f} points below that of step {start}"
        )
    share = newest.mean_length / first.mean_length
    if not SHORTEST <= share <= LONGEST and change["accuracy"] <= margin:
        found.append(
            f"completions at step {step} have {newest.mean_length:.0f} tokens, {100 * share:.0f}% of the "
            f"{first.mean_length:.0f} at step {start}, without a clear gain in accuracy "
            f"({100 * change['accuracy']:+.1f} ± {100 * change['accuracy_error']:.1f} points)"
        )
    return found


def best_steps(history: History, count: int) -> list[int]:
    """The `count` best steps, best first: by accuracy, of equal ones the shorter, of these the earlier.

    Raises ValueError for a count under 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; it must be at least 1")
    ranked = sorted(history, key=lambda entry: (-entry[1].accuracy, entry[1].mean_length, entry[0]))
    return [step for step, _ in ranked[:count]]
