"""Planning in STRIPS, on a lamp."""

from grpo.data.strips import actions_of, execute, shortest_plans


def test_strips_by_hand():
    """A lamp that is switched on, and can then be read by, which wears it out."""
    rows = [
        {"step": "switch", "needs": ["off"], "adds": ["on"], "deletes": ["off"]},
        {"step": "switch", "needs": ["on"], "adds": ["off"], "deletes": ["on"]},
        {"step": "read", "needs": ["on"], "adds": ["read", "off"], "deletes": ["on"]},
    ]
    lamp = {"facts": ["off"], "goal": ["read"], "actions": rows}
    assert execute(lamp, ["switch", "read"]) == (2, frozenset({"read", "off"}))
    assert execute(lamp, ["switch", "switch", "read", "switch"]) == (2, frozenset({"off"}))
    assert execute(lamp, ["read"]) == execute(lamp, ["sing"]) == (0, frozenset({"off"}))
    assert execute(lamp, []) == (0, frozenset({"off"}))
    plans = shortest_plans(frozenset({"off"}), actions_of(lamp))
    assert plans == {
        frozenset({"off"}): (),
        frozenset({"on"}): ("switch",),
        frozenset({"read", "off"}): ("switch", "read"),
        frozenset({"read", "on"}): ("switch", "read", "switch"),
    }
