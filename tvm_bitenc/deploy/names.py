"""Names that a server and its clients agree on."""

# Functions for clients.
CLOCK, TIMES = "tvm_bitenc.clock_kernels", "tvm_bitenc.kernel_times"
NETWORK_TIMES = "tvm_bitenc.network_times"
MACHINE = "tvm_bitenc.machine"
PROBE = "bitenc-probe"  # Key of a client that only asks whether the server is free.
