"""Looking at calls: the same ones, in the same order, as a rewriter that changes nothing."""

import tvm_ffi
from tvm import relax

from tvm_bitenc.transform.rewrite import rewrite_calls
from tvm_bitenc.transform.visit import visit_calls

op = relax.op


def module(module_of):
    def body(builder, x):
        pair = builder.emit(relax.Tuple([builder.emit(op.add(x, x)), x]))
        first = builder.emit(relax.TupleGetItem(pair, 0), "second_layer")
        return builder.emit(op.nn.relu(builder.emit(op.multiply(first, x), "named")))

    return module_of([(2, 3)], body)


def test_as_a_rewriter_that_changes_nothing(module_of):
    mod, seen = module(module_of), {}
    for visit in (visit_calls, rewrite_calls):
        found = []

        def note(call, graph, found=found):
            sources = [type(graph.definition(argument)).__name__ for argument in call.args]
            found.append((call.op.name, graph.name, sources))

        visit(mod, note)
        seen[visit] = found
    assert seen[visit_calls] == seen[rewrite_calls]
    assert [name for name, *_ in seen[visit_calls]] == [
        "relax.add",
        "relax.multiply",
        "relax.nn.relu",
    ]
    assert seen[visit_calls][1][1] == "named"


def test_nothing_changes(module_of):
    mod = module(module_of)
    before = tvm_ffi.structural_hash(mod)
    visit_calls(mod, lambda call, graph: op.negative(graph.typed(call)))
    assert tvm_ffi.structural_hash(mod) == before
