"""FLOPs, bytes and collectives read from a compiled program, against what can be counted by hand."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.plan.cost import loop_cost, program_cost
from egrsd_jax.plan.program import parse_program

N = 64


def read(function, *shapes, spec=None, out=None):
    """The program of a function of float32 arrays, on a mesh of eight devices where a spec is given for each."""
    mesh = make_mesh(fsdp=8)
    specs = spec or [PartitionSpec()] * len(shapes)
    inputs = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, one))
        for shape, one in zip(shapes, specs, strict=True)
    ]
    places = None if out is None else NamedSharding(mesh, out)
    return parse_program(jax.jit(function, out_shardings=places).lower(*inputs).compile().as_text())


def hlo(body: str, *others: str) -> str:
    """A program's text around the body of its entry computation."""
    return "\n\n".join(["HloModule test", *others, "ENTRY %main (p: f32[1]) -> f32[1] {\n" + body + "\n}\n"])


def test_a_scan_counts_as_often_as_it_turns():
    def chain(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=5)[0]

    program = read(chain, (N, N), (N, N))
    assert program_cost(program).flops == 5 * 2 * N**3
    assert loop_cost(program, 5).flops == 2 * N**3
    with pytest.raises(ValueError, match="no loop of 6 turns"):
        loop_cost(program, 6)


def test_loops_within_loops_multiply():
    def nested(x, w):
        turn = partial(jax.lax.fori_loop, 0, 3, lambda _, x: jnp.tanh(x @ w))
        return jax.lax.fori_loop(2, 9, lambda _, x: turn(x), x)

    assert program_cost(read(nested, (N, N), (N, N))).flops == 7 * 3 * 2 * N**3


def test_a_loop_that_may_end_early_counts_at_its_limit():
    def until(x, w):
        def unfinished(state):
            return (state[0] < 11) & jnp.any(state[1] > 0)

        return jax.lax.while_loop(unfinished, lambda state: (state[0] + 1, jnp.tanh(state[1] @ w)), (0, x))

    cost = program_cost(read(until, (N, N), (N, N)))
    assert (cost.flops, cost.uncounted) == (11 * 2 * N**3, frozenset())


def test_a_loop_of_unknown_length_is_told():
    def until(x, w):
        return jax.lax.while_loop(lambda x: jnp.any(x > 0), lambda x: jnp.tanh(x @ w), x)

    (reason,) = program_cost(read(until, (N, N), (N, N))).uncounted
    assert "turns of the loop" in reason


def test_a_loop_reads_its_slice_of_stacked_weights_and_not_the_stack():
    layers = 32

    def chain(x, w):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    moved = program_cost(read(chain, (N, N), (layers, N, N))).bytes
    each = 4 * N * N
    assert layers * 3 * each <= moved <= layers * 10 * each  # the stack in every turn would be 32 times a slice


@pytest.mark.parametrize(
    ("spec", "out", "kind", "share"),
    [
        ([PartitionSpec("fsdp")], PartitionSpec(), "all-gather", 7 / 8),
        ([PartitionSpec(None, "fsdp")], PartitionSpec("fsdp"), "all-to-all", 7 / 64),
    ],
)
def test_bytes_sent_are_those_of_a_ring(spec, out, kind, share):
    sent = program_cost(read(lambda x: x + 1.0, (N, N), spec=spec, out=out)).sent
    assert dict(sent) == {kind: pytest.approx(share * 4 * N * N)}


def test_a_sum_over_devices_sends_everything_twice():
    spec = [PartitionSpec(None, "fsdp"), PartitionSpec("fsdp")]
    cost = program_cost(read(jnp.matmul, (N, N), (N, N), spec=spec, out=PartitionSpec()))
    assert cost.flops == 2 * N**3 / 8
    assert cost.sent == {"all-reduce": pytest.approx(2 * 7 / 8 * 4 * N * N)}


@pytest.mark.parametrize(
    "groups",
    [
        "replica_groups={{0,1,2,3},{4,5,6,7}}",
        "replica_groups=[2,4]<=[8]",
        "replica_groups=mesh['a'=2,'b'=4] {'b'}",
        "replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}",
        "replica_groups=mesh['a'=1,'b'=2,'c'=4] {'b':(1)2,'c':(2)2}",
    ],
)
def test_groups_are_read_in_every_form(groups):
    text = hlo(
        "  %p = f32[1000]{0} parameter(0)\n"
        f"  ROOT %sum = f32[1000]{{0}} all-reduce(%p), channel_id=1, {groups}, to_apply=%add"
    )
    assert program_cost(parse_program(text)).sent == {"all-reduce": 2 * 4000 * 3 / 4}


def test_an_unreadable_group_is_an_error():
    text = hlo("  %p = f32[8]{0} parameter(0)\n  ROOT %sum = f32[8]{0} all-reduce(%p), replica_groups=?, to_apply=%add")
    with pytest.raises(ValueError, match="collective sum cannot be read"):
        program_cost(parse_program(text))


def convolution(left: str, right: str, out: str, labels: str, window: str = "") -> float:
    attributes = f"window={{{window}}}, dim_labels={labels}" if window else f"dim_labels={labels}"
    text = hlo(
        f"  %l = bf16[{left}]{{0:T(8,128)(2,1)}} parameter(0)\n  %r = bf16[{right}]{{0:T(8,128)(2,1)}} parameter(1)\n"
        f"  ROOT %c = bf16[{out}]{{0:T(8,128)(2,1)}} convolution(%l, %r), {attributes}"
    )
    return program_cost(parse_program(text)).flops


def test_products_that_a_tpu_writes_as_convolutions():
    assert convolution("16,32", "24,32", "16,24", "bf_oi->bf") == 2 * 16 * 24 * 32
    # rows [8, 16, 32] times [24, 32]: the first axis is a window of one
    assert convolution("8,16,32", "24,32,1", "8,16,24", "0bf_oi0->0bf", "size=1") == 2 * 8 * 16 * 24 * 32
    # eight products side by side, their axis as a window that only meets itself
    side_by_side = convolution("8,16,32", "8,32,24", "8,16,24", "0bf_0io->0bf", "size=8 stride=7 lhs_dilate=8")
    assert side_by_side == 2 * 8 * 16 * 24 * 32
    # two axes contracted at once
    assert convolution("2,16,32", "2,24,32", "16,24,1", "0bf_0oi->bf0", "size=2") == 2 * 16 * 24 * 32 * 2
    # every pair of 4 and 4 entries meets once over 7 places, the rest of the window covers padding
    padded = convolution("4,16,32", "4,24,32", "7,16,24", "0bf_0oi->0bf", "size=4 pad=3_3 rhs_reversal=1")
    assert padded == 2 * 4 * 4 * 16 * 24 * 32


def test_attention_counts_the_blocks_on_and_under_the_diagonal():
    rows, heads, length, head_dim, blocks = 2, 4, 1024, 128, 4
    query = f"bf16[{rows},{heads},{length},{head_dim}]{{3,2,1,0}}"
    text = hlo(
        f"  %m = s8[1,{blocks},{blocks}]{{2,1,0}} parameter(0)\n  %q = {query} parameter(1)\n"
        f"  ROOT %splash_mha_dq_no_residuals.1 = {query} custom-call(%m, %m, %q, %q, %q), "
        'custom_call_target="tpu_custom_call"'
    )
    seen = blocks * (blocks + 1) / 2 * (length / blocks) ** 2
    assert program_cost(parse_program(text)).flops == 3 * 2 * rows * heads * seen * head_dim
    (reason,) = program_cost(parse_program(text.replace("splash_mha_dq", "other"))).uncounted
    assert "other" in reason


def test_attention_of_one_token_a_row_counts_the_whole_cache():
    """An upper bound: how much of it a row holds is known on the device alone."""
    rows, groups, shared, head_dim, capacity = 4, 2, 3, 128, 1024
    query = f"bf16[{rows},{groups},{shared},{head_dim}]{{3,2,1,0}}"
    text = hlo(
        f"  %n = s32[] parameter(0)\n  %b = s32[{rows}]{{0}} parameter(1)\n  %q = {query} parameter(2)\n"
        f"  %k = bf16[{rows},{groups},{head_dim},{capacity}]{{3,2,1,0}} parameter(3)\n"
        f"  %v = bf16[{rows},{groups},{capacity},{head_dim}]{{3,2,1,0}} parameter(4)\n"
        f"  ROOT %ragged_attention.1 = {query} custom-call(%n, %b, %b, %q, %k, %v), "
        'custom_call_target="tpu_custom_call"'
    )
    assert program_cost(parse_program(text)).flops == 2 * 2 * rows * groups * shared * head_dim * capacity


def test_on_chip_memory_costs_no_bandwidth_and_a_prefetch_costs_it_once():
    chip, main = "bf16[1000]{0:T(1024)S(1)}", "bf16[1000]{0:T(1024)}"
    text = hlo(
        f"  %p = {main} parameter(0)\n"
        f"  %s = ({chip}, {main}, u32[]{{:S(2)}}) copy-start(%p)\n"
        f"  %d = {chip} copy-done(%s)\n"
        f"  ROOT %n = {chip} negate(%d)"
    )
    assert program_cost(parse_program(text)).bytes == 2000


def test_a_slice_that_is_prefetched_reads_the_slice():
    chip, main = "bf16[100]{0:T(1024)S(1)}", "bf16[1000]{0:T(1024)}"
    text = hlo(
        f"  %p = {main} parameter(0)\n"
        f"  %s = (({main}), {chip}, s32[]{{:S(2)}}) slice-start(%p), slice={{[0:100]}}\n"
        f"  ROOT %d = {chip} slice-done(%s)"
    )
    assert program_cost(parse_program(text)).bytes == 200


def test_a_collective_that_runs_beside_other_work_is_sent_once():
    gather = (
        'all-gather(%a), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="0"}'
    )
    start = (
        "%start (a: f32[10]) -> (f32[10], f32[40]) {\n  %a = f32[10]{0} parameter(0)\n"
        f"  %g = f32[40]{{0}} {gather}\n"
        '  ROOT %r = (f32[10]{0}, f32[40]{0}) custom-call(%g), custom_call_target="AsyncCollectiveStart"\n}'
    )
    alongside = (
        "%alongside (a: f32[10], b: f32[40]) -> (f32[10], f32[40]) {\n  %a = f32[10]{0} parameter(0)\n"
        f"  %b = f32[40]{{0}} parameter(1)\n  %g = f32[40]{{0}} {gather}\n"
        "  ROOT %t = (f32[10]{0}, f32[40]{0}) tuple(%a, %g)\n}"
    )
    text = hlo(
        "  %p = f32[10]{0} parameter(0)\n"
        "  %s = (f32[10]{0}, f32[40]{0}) fusion(%p), kind=kCustom, calls=%start\n"
        "  %x = f32[10]{0} get-tuple-element(%s), index=0\n  %y = f32[40]{0} get-tuple-element(%s), index=1\n"
        "  ROOT %b = (f32[10]{0}, f32[40]{0}) fusion(%x, %y), kind=kCustom, calls=%alongside",
        start,
        alongside,
    )
    assert program_cost(parse_program(text)).sent == {"all-gather": 40 * 3}


def test_a_text_without_an_entry_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse_program("HloModule empty")


def test_the_sizes_of_odd_types():
    text = hlo("  ROOT %p = (pred[3]{0}, s4[5]{0}, f8e4m3fn[7]{0}, token[]) parameter(0)")
    arrays = parse_program(text).entry.instructions["p"].arrays
    assert [array.bytes for array in arrays] == [3, math.ceil(5 / 2), 7, 0]


@pytest.mark.parametrize(
    "branches", ["branch_computations={%small, %large}", "true_computation=%large, false_computation=%small"]
)
def test_of_two_branches_the_dearer_counts(branches):
    def branch(name: str, size: int) -> str:
        product = "dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={1}"
        return (
            f"%{name} (a: f32[{size},{size}]) -> f32[{size},{size}] {{\n  %a = f32[{size},{size}]{{1,0}} parameter(0)\n"
            f"  ROOT %d = f32[{size},{size}]{{1,0}} {product}\n}}"
        )

    text = hlo(
        "  %p = s32[] parameter(0)\n  %q = f32[9,9]{1,0} parameter(1)\n"
        f"  ROOT %c = f32[9,9]{{1,0}} conditional(%p, %q, %q), {branches}",
        branch("small", 8),
        branch("large", 9),
    )
    assert program_cost(parse_program(text)).flops == 2 * 9**3


def test_a_gather_that_is_started_writes_its_result():
    text = hlo(
        "  %p = f32[10]{0} parameter(0)\n"
        "  %s = (f32[10]{0}, f32[40]{0}) all-gather-start(%p), replica_groups={{0,1,2,3}}, dimensions={0}\n"
        "  ROOT %d = f32[40]{0} all-gather-done(%s)"
    )
    cost = program_cost(parse_program(text))
    assert (cost.bytes, dict(cost.sent)) == (40 + 160, {"all-gather": 120})
