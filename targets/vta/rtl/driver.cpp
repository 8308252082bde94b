// The accelerator and a memory that the caller owns, kept from one program to the next.
#include <cstdint>
#include <deque>
#include <utility>

#include "Vaccelerator.h"
#include "verilated.h"

namespace {

// More cycles without a word on the bus or a step of the array than any instruction needs, or than
// the accelerator waits for an answer before and behind a program.
constexpr uint64_t kQuiet = 4 * 4096;

// What the memory does wrong once, with the answer number `fault_at`.
enum Fault : uint32_t {
  kNoFault, kDropResponse, kRepeatResponse, kSwapResponses, kFailResponse, kWrongId,
  kDropAcknowledge, kFailAcknowledge,
};

}  // namespace

extern "C" {

// How memory behaves; stalls are percent of cycles in which a channel isn't ready or valid.
struct vta_bus {
  uint32_t latency, seed;
  uint32_t read_stalls, response_stalls, write_stalls, acknowledge_stalls;
  uint32_t fault, fault_at;
};

}  // extern "C"

namespace {

struct Response {
  uint64_t due, data;
  uint8_t id;
  bool error;
};

struct Write {
  uint64_t due, data;
  uint32_t address;
};

class Machine {
 public:
  Machine(uint64_t* memory, uint32_t words, const vta_bus& bus)
      : memory_(memory), words_(words), bus_(bus), top_(&context_), random_(bus.seed + 1) {
    Reset();
  }

  void Reset() {
    top_.reset = 1;
    Cycle();
    top_.reset = 0;
  }

  // Returns the accelerator's error, -1 if it isn't done after `max_cycles`, or -2 if it hangs.
  int Run(uint32_t base, uint32_t words, uint32_t instructions, uint64_t max_cycles) {
    top_.start = 1;
    top_.base = base;
    top_.memory_words = words;
    top_.instructions = instructions;
    quiet_ = 0;
    for (uint64_t cycle = 0; cycle < max_cycles; ++cycle) {
      Cycle();
      top_.start = 0;
      if (top_.done) return top_.error;
      if (quiet_ > kQuiet + bus_.latency) return -2;
    }
    return -1;
  }

  void Count(uint64_t* counters) const {
    const uint32_t found[] = {top_.cycles,      top_.load_cycles, top_.compute_cycles,
                              top_.store_cycles, top_.array_steps, top_.read_words,
                              top_.write_words};
    for (uint32_t count : found) *counters++ = count;
  }

 private:
  void Cycle() {
    ShowResponse();
    ShowAcknowledge();
    top_.read_ready = !Stalls(bus_.read_stalls);
    top_.write_ready = !Stalls(bus_.write_stalls);
    top_.clk = 0;
    top_.eval();
    ++quiet_;
    if (top_.array_step) quiet_ = 0;
    bool responds = top_.response_valid && top_.response_ready;
    bool acknowledges = top_.acknowledge_valid && top_.acknowledge_ready;
    if (responds) TakeResponse();
    if (acknowledges) TakeAcknowledge();
    if (top_.read_valid && top_.read_ready) TakeRead();
    if (top_.write_valid && top_.write_ready) TakeWrite();
    top_.clk = 1;
    top_.eval();
    if (responds) top_.response_valid = 0;
    if (acknowledges) top_.acknowledge_valid = 0;
    ++now_;
  }

  // What is valid stays so until it is taken.
  void ShowResponse() {
    if (top_.response_valid || responses_.empty() || responses_.front().due > now_) return;
    if (Stalls(bus_.response_stalls)) return;
    top_.response_valid = 1;
    top_.response_data = responses_.front().data;
    top_.response_id = responses_.front().id;
    top_.response_error = responses_.front().error;
  }

  void ShowAcknowledge() {
    if (top_.acknowledge_valid || writes_.empty() || writes_.front().due > now_) return;
    if (Stalls(bus_.acknowledge_stalls)) return;
    bool is_faulty = acknowledge_ == bus_.fault_at;
    if (is_faulty && bus_.fault == kDropAcknowledge) {
      TakeAcknowledge();
      return;
    }
    top_.acknowledge_valid = 1;
    top_.acknowledge_error = (is_faulty && bus_.fault == kFailAcknowledge)
                             || writes_.front().address >= words_;
  }

  void TakeResponse() {
    responses_.pop_front();
    quiet_ = 0;
  }

  // A write is seen no earlier than it is acknowledged.
  void TakeAcknowledge() {
    Write write = writes_.front();
    if (write.address < words_) memory_[write.address] = write.data;
    writes_.pop_front();
    ++acknowledge_;
    quiet_ = 0;
  }

  void TakeRead() {
    bool is_inside = top_.read_address < words_;
    Response response{now_ + bus_.latency, is_inside ? memory_[top_.read_address] : 0,
                      top_.read_id, !is_inside};
    bool is_faulty = response_++ == bus_.fault_at;
    if (is_faulty && bus_.fault == kFailResponse) response.error = true;
    if (is_faulty && bus_.fault == kWrongId) response.id ^= 1 + Random() % 15;
    if (!is_faulty || bus_.fault != kDropResponse) responses_.push_back(response);
    if (is_faulty && bus_.fault == kRepeatResponse) responses_.push_back(response);
    // With the one before, where that is still here.
    if (is_faulty && bus_.fault == kSwapResponses && responses_.size() > 2)
      std::swap(responses_.end()[-1], responses_.end()[-2]);
    quiet_ = 0;
  }

  void TakeWrite() {
    writes_.push_back({now_ + bus_.latency, top_.write_data, top_.write_address});
    quiet_ = 0;
  }

  bool Stalls(uint32_t percent) { return percent && Random() % 100 < percent; }

  uint32_t Random() {  // xorshift64*
    random_ ^= random_ >> 12;
    random_ ^= random_ << 25;
    random_ ^= random_ >> 27;
    return random_ * 0x2545f4914f6cdd1d >> 32;
  }

  uint64_t* memory_;
  uint32_t words_;
  vta_bus bus_;
  VerilatedContext context_;
  Vaccelerator top_;
  std::deque<Response> responses_;
  std::deque<Write> writes_;
  uint64_t random_, now_ = 0, quiet_ = 0;
  uint32_t response_ = 0, acknowledge_ = 0;  // How many there were.
};

}  // namespace

extern "C" {

void* vta_open(uint64_t* memory, uint32_t words, const vta_bus* bus) {
  return new Machine(memory, words, *bus);
}

void vta_close(void* machine) { delete static_cast<Machine*>(machine); }

void vta_reset(void* machine) { static_cast<Machine*>(machine)->Reset(); }

// Runs a program, and fills its counters: cycles, load, compute, store, steps, reads, writes.
int vta_run(void* machine, uint32_t base, uint32_t words, uint32_t instructions,
            uint64_t max_cycles, uint64_t* counters) {
  int error = static_cast<Machine*>(machine)->Run(base, words, instructions, max_cycles);
  static_cast<Machine*>(machine)->Count(counters);
  return error;
}

}  // extern "C"
