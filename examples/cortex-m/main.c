/* Runs a network of one input and one output once: net x.bin y.bin, raw arrays in C order. */
#include "net.h"
#include "semihosting.h"

NET_DEFINE_ARENA(arena);
static _Alignas(NET_ALIGNMENT) unsigned char x[NET_INPUT0_BYTES], y[NET_OUTPUT0_BYTES];

int main(int argc, char **argv) {
    struct net net;
    if (argc != 3 || read_file(argv[1], x, sizeof x) != 0) {
        print("usage: net x.bin y.bin\n");
        return 2;
    }
    if (net_init(&net, arena, sizeof arena) != NET_OK || net_run(&net, (void *)x, (void *)y) != NET_OK) {
        print("the network failed\n");
        return 1;
    }
    return write_file(argv[2], y, sizeof y) != 0;
}
