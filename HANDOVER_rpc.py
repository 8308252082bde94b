import numpy as np
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.deploy.remote import *
from tvm_bitenc.deploy.serve import start_server

if __name__=="__main__":
    b=relax.BlockBuilder()
    x=relax.Var("x",relax.TensorType((2,3),"float32"))
    with b.function("main",[x]):
        with b.dataflow():
            y=b.emit_output(b.emit(relax.op.multiply(x,x)))
        b.emit_func_output(y)
    be.build(b.get(),threads=1).export_library("/tmp/b/r.so")
    s=start_server(port=9190)
    a=np.ones((2,3),np.float32)*3
    d=deploy("/tmp/b/r.so",[a],Connection(port=s.port))
    print(d, d.differences([a*a]), d.benchmark)
    s.terminate()
    try: deploy("/tmp/b/r.so",[a],Connection(port=s.port))
    except Exception as e: print(repr(e))
