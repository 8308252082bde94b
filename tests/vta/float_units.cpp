// Gives the units new operands every cycle, and takes their results so many cycles later.
#include <cstddef>
#include <cstdint>

#include "Vfloat_units.h"

extern "C" void run(size_t count, const uint32_t* a, const uint32_t* b, const uint32_t* c,
                    const uint32_t* latencies, uint32_t* results) {
  Vfloat_units top;
  for (size_t cycle = 0; cycle < count + 16; ++cycle) {
    const size_t now = cycle < count ? cycle : count - 1;
    top.a = a[now];
    top.b = b[now];
    top.c = c[now];
    top.clk = 0;
    top.eval();
    top.clk = 1;
    top.eval();
    const uint32_t found[] = {top.converted, top.product, top.multiplied_added, top.sum};
    for (int unit = 0; unit < 4; ++unit) {
      // One edge is behind the operands of this cycle.
      const size_t latency = latencies[unit] - 1;
      if (cycle >= latency && cycle - latency < count)
        results[unit * count + cycle - latency] = found[unit];
    }
  }
}
