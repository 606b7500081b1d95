"""Loops and longest ways: what the bound on instructions rests on, without any cross compiler."""

import subprocess

import numpy as np
import pytest
from common.c_proof import hostile_rows
from common.every_step import all_kinds
from hypothesis import given
from hypothesis import strategies as st

from effml.program import generate_c
from effml.program.compile import find_compiler
from effml.program.targets import TARGETS
from effml.program.targets.disassembly import Disassembly
from effml.program.targets.flow import Block, BoundError, longest_way
from effml.program.targets.loops import loops_of
from effml.program.targets.measure import archived_bytes, stated_frames

MAIN = """#include "model.h"
#include <stdio.h>
int main(void)
{
    %s row[MODEL_N_FEATURES];
    while (fread(row, sizeof row, 1, stdin)) {
        model_predict(row);
    }
    return 0;
}
"""


def counted(text):
    """Return C whose loops abort when one turns more often than it says."""
    lines = text.splitlines()
    for loop in reversed(loops_of(text)):
        lines.insert(loop.first, f"if (++turns{loop.first} > {loop.turns}u) abort();")
        lines.insert(loop.first - 1, f"unsigned turns{loop.first} = 0;")
    return "#include <stdlib.h>\n" + "\n".join(lines) + "\n"


def run_counted(program, text, folder, rng):
    source = generate_c(program, outputs=("label",))
    (folder / "model.h").write_text(source.header)
    (folder / "model.c").write_text(text)
    (folder / "main.c").write_text(MAIN % ("float" if program.input_dtype == "float32" else f"{program.input_dtype}_t"))
    subprocess.run([*find_compiler(), "-O1", "model.c", "main.c", "-o", "run"], cwd=folder, check=True)
    rows = hostile_rows(program, 400, rng)
    return subprocess.run([str(folder / "run")], input=rows.tobytes(), check=False).returncode


def test_no_loop_turns_more_often_than_its_text_says(tmp_path):
    rng = np.random.default_rng(0)
    for program in list(all_kinds(rng))[::3]:
        text = counted(generate_c(program, outputs=("label",)).source)
        assert run_counted(program, text, tmp_path, rng) == 0, program


def test_loops_that_say_too_little_are_caught(tmp_path):
    rng = np.random.default_rng(1)
    program = next(program for program in all_kinds(rng) if program.steps[0].kind == "tree_walk")
    source = generate_c(program, outputs=("label",)).source
    stated = max(loop.turns for loop in loops_of(source))
    wrong = counted(source.replace(f"at most {stated} turns", "at most 1 turns"))
    assert run_counted(program, wrong, tmp_path, rng) != 0


def test_a_loop_without_a_limit_is_refused():
    with pytest.raises(ValueError, match=r"the loop of line 2 does not say how often it turns: while \(x\) \{"):
        loops_of("int f(int x)\n    while (x) {\n    }\n")


@pytest.mark.parametrize(
    "text, turns, tests_first",
    [
        ("for (k = 1; k < 10u; k++) {\n}", 9, False),
        ("for (k = 5; k < 3u; k++) {\n}", 0, False),
        ("for (;;) { /* at most 4 turns */\n}", 4, False),
        ("do { /* at most 4 turns */\n} while (n);", 4, False),
        ("while (k < n) { /* at most 4 turns */\n}", 4, True),
        ("for (i = 1; i < d[m]; i++) { /* at most 4 turns */\n}", 4, True),
    ],
)
def test_what_a_loop_says(text, turns, tests_first):
    (loop,) = loops_of(text)
    assert (loop.first, loop.last, loop.turns, loop.tests_first) == (1, 2, turns, tests_first)


# -- the longest way --------------------------------------------------------------------------------------------------


def graph(edges, costs=None):
    nodes = {node for edge in edges for node in edge}
    return {n: Block((costs or {}).get(n, 1), sorted(b for a, b in edges if a == n)) for n in nodes}


def passes(**by_head):
    return lambda loops: {loop.head: by_head[f"n{loop.head}"] for loop in loops}


def test_the_longer_branch_counts():
    blocks = graph([(0, 1), (0, 2), (1, 3), (2, 3)], {1: 5, 2: 7})
    assert longest_way(blocks, 0, passes()) == 1 + 7 + 1


def test_loops_multiply():
    blocks = graph([(0, 1), (1, 1), (1, 2)], {1: 3})
    assert longest_way(blocks, 0, passes(n1=10)) == 1 + 10 * 3 + 1
    nested = graph([(0, 1), (1, 2), (2, 2), (2, 3), (3, 1), (3, 4)])
    assert longest_way(nested, 0, passes(n1=5, n2=7)) == 1 + 5 * (1 + 7 + 1) + 1


def test_a_loop_that_is_left_in_its_middle_pays_for_its_last_pass():
    blocks = graph([(0, 1), (1, 2), (2, 1), (1, 3)], {1: 2, 2: 10})
    assert longest_way(blocks, 0, passes(n1=4)) >= 1 + 3 * 12 + 2 + 1


def test_a_loop_with_two_entries_has_no_bound():
    with pytest.raises(BoundError, match="entered in its middle"):
        longest_way(graph([(0, 1), (0, 2), (1, 2), (2, 1), (1, 3)]), 0, passes())


@given(st.data())
def test_no_walk_is_longer(data):
    """Random walks that pass each loop's head no more often than allowed never cost more than the bound."""
    n = data.draw(st.integers(2, 9))
    forward = [(a, a + 1) for a in range(n)]
    forward += data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(1, n)).filter(lambda e: e[0] < e[1])))
    heads = data.draw(st.sets(st.integers(1, n - 1), max_size=3))
    back = [(data.draw(st.integers(head, n - 1)), head) for head in sorted(heads)]
    costs = {k: data.draw(st.integers(1, 20)) for k in range(n + 1)}
    blocks, allowed = graph(sorted({*forward, *back}), costs), {}

    def limits(loops):
        allowed.update({loop.head: (data.draw(st.integers(1, 4)), frozenset(loop.blocks)) for loop in loops})
        return {head: turns for head, (turns, _) in allowed.items()}

    try:
        bound = longest_way(blocks, 0, limits)
    except BoundError:
        return
    at, cost, passed = 0, 0, {}
    while True:
        cost += costs[at]
        for head, (_, members) in allowed.items():
            passed[head] = passed.get(head, 0) + 1 if at == head else passed.get(head, 0) if at in members else 0
        possible = [
            s
            for s in blocks[at].successors
            if s not in allowed or passed.get(s, 0) < allowed[s][0] or at not in allowed[s][1]
        ]
        if not possible:
            break
        at = data.draw(st.sampled_from(possible))
    assert cost <= bound


# -- what tools print -------------------------------------------------------------------------------------------------

ARM = """
00000100 <model_predict>:
 100:\tstmdb\tsp!, {r4, r5, r6, lr}
 104:\tsub\tsp, #40\t; 0x28
 106:\tbl\t200 <memset>
 10a:\tbne.n\t106 <model_predict+0x6>
 10c:\tadd\tsp, #40
 10e:\tpop\t{r4, r5, r6, pc}

00000200 <memset>:
 200:\tpush\t{r4-r7, lr}
 202:\tpop\t{r4-r7, pc}
"""


def test_frames_are_read_off_the_instructions():
    assembly = Disassembly(ARM, TARGETS["cortex-m3"])
    assert assembly.callees == {"model_predict": {"memset"}, "memset": set()}
    assert [assembly.frame_bytes(name) for name in ("model_predict", "memset")] == [16 + 40, 20]
    assert assembly.stack_bytes("model_predict", {}) == 76
    assert assembly.stack_bytes("model_predict", {"model_predict": 60}) == 80
    branch = assembly.functions["model_predict"][3]
    assert (branch.name, branch.target) == ("bne.n", 0x106)


def test_stated_frames():
    assert stated_frames("model.c:7:5:model_predict\t152\tstatic\n") == {"model_predict": 152}


def test_only_what_the_map_keeps_from_archives_is_counted():
    text = """Discarded input sections
 .text          0x00000000       0x99 /lib/libgcc.a(a.o)
Linker script and memory map
 .text          0x00000010       0x20 model.o
 .text          0x00000030       0x40 /lib/libgcc.a(b.o)
 .text.memset
                0x00000070       0x08 /lib/libc.a(memset.o)
 .debug_info    0x00000000      0x400 /lib/libc.a(memset.o)
"""
    assert archived_bytes(text) == 0x40 + 0x08
