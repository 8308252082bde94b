/* QEMU plugin: how many instructions run between the functions roi_begin and roi_end, and with
   blocks=on how often each straight run of them does.

   The few declarations are those of qemu-plugin.h, which Debian's qemu-user doesn't ship. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct block;
struct instruction;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
void qemu_plugin_register_vcpu_insn_exec_inline(struct instruction *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_insn_exec_cb(struct instruction *, void (*)(unsigned, void *), int,
                                            void *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);
uint64_t qemu_plugin_tb_vaddr(const struct block *);
size_t qemu_plugin_tb_n_insns(const struct block *);
struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
const char *qemu_plugin_insn_symbol(const struct instruction *);
void qemu_plugin_outs(const char *);
int qemu_plugin_version = 1;

enum { ADD = 0, NO_REGISTERS = 0 };
static uint64_t executed, at_begin;
static struct counter {
  uint64_t address, instructions, times;
  struct counter *next;
} *counters;
static int with_blocks;

static void begin(unsigned cpu, void *data) {
  at_begin = executed;
  for (struct counter *one = counters; one; one = one->next) one->times = 0;
}

static void end(unsigned cpu, void *data) {
  char line[96];
  snprintf(line, sizeof line, "instructions=%" PRIu64 "\n", executed - at_begin);
  qemu_plugin_outs(line);
  for (struct counter *one = counters; one; one = one->next) {
    if (!one->times) continue;
    snprintf(line, sizeof line, "block=%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", one->address,
             one->instructions, one->times);
    qemu_plugin_outs(line);
  }
}

static void count_block(struct block *block) {
  struct counter *one = calloc(1, sizeof *one);
  *one = (struct counter){.address = qemu_plugin_tb_vaddr(block),
                          .instructions = qemu_plugin_tb_n_insns(block),
                          .next = counters};
  counters = one;
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &one->times, 1);
}

static void translate(plugin_id id, struct block *block) {
  if (with_blocks) count_block(block);
  const char *symbol = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(block, 0));
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
    struct instruction *one = qemu_plugin_tb_get_insn(block, i);
    qemu_plugin_register_vcpu_insn_exec_inline(one, ADD, &executed, 1);
    if (i || !symbol) continue;
    if (!strcmp(symbol, "roi_begin"))
      qemu_plugin_register_vcpu_insn_exec_cb(one, begin, NO_REGISTERS, NULL);
    if (!strcmp(symbol, "roi_end"))
      qemu_plugin_register_vcpu_insn_exec_cb(one, end, NO_REGISTERS, NULL);
  }
}

int qemu_plugin_install(plugin_id id, const void *info, int count, char **options) {
  with_blocks = count == 1 && !strcmp(options[0], "blocks=on");
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  return 0;
}
