// Runs the accelerator on a memory that the caller owns.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "Vaccelerator.h"
#include "verilated.h"

namespace {

struct Response {
  bool valid = false;
  bool tag = false;
  uint64_t data = 0;
};

}  // namespace

// Counters that `vta_run` fills, in this order.
enum Counter { kCycles, kLoad, kCompute, kStore, kSteps, kReads, kWrites, kCounters };

// More cycles without a request or a step of the array than any instruction needs.
constexpr uint64_t kQuiet = 2048;

// Copies the counters to `layers` at the end of each layer, up to so many. Returns the error of the accelerator, -1 if it isn't done after `max_cycles`, or -2 if it hangs.
extern "C" int vta_run(uint64_t* memory, uint32_t memory_words, uint32_t instructions,
                       uint32_t latency, uint64_t max_cycles, uint64_t* counters,
                       uint64_t* layers, uint32_t layer_count) {
  VerilatedContext context;
  Vaccelerator top(&context);
  std::vector<Response> line(latency);
  size_t slot = 0;
  for (int i = 0; i < kCounters; ++i) counters[i] = 0;
  top.instructions = instructions;
  top.memory_words = memory_words;
  top.reset = 1;
  for (int edge = 0; edge < 4; ++edge) {
    top.clk = edge & 1;
    top.eval();
  }
  top.reset = 0;
  uint64_t busy_cycle = 0;
  for (uint64_t cycle = 0; cycle < max_cycles; ++cycle) {
    Response& response = line[slot];
    top.response = response.valid;
    top.response_tag = response.tag;
    top.response_data = response.data;
    top.clk = 0;
    top.eval();
    response.valid = false;
    if (top.request && top.request_address < memory_words) {
      if (top.request_write) {
        memory[top.request_address] = top.request_data;
        ++counters[kWrites];
      } else {
        response = {true, static_cast<bool>(top.request_tag), memory[top.request_address]};
        ++counters[kReads];
      }
    }
    slot = slot + 1 == latency ? 0 : slot + 1;
    counters[kLoad] += top.load_active;
    counters[kCompute] += top.compute_active;
    counters[kStore] += top.store_active;
    counters[kSteps] += top.array_step;
    ++counters[kCycles];
    if (top.ends_layer && layer_count) {
      layers = std::copy(counters, counters + kCounters, layers);
      --layer_count;
    }
    if (top.request || top.array_step || response.valid) busy_cycle = cycle;
    if (cycle - busy_cycle > kQuiet + latency) return -2;
    top.clk = 1;
    top.eval();
    if (top.done) return top.error;
  }
  return -1;
}
