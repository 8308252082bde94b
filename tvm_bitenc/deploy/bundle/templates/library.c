/* Where the weights of a library are, for TVM's virtual machine. */
extern const unsigned char bitenc_weights[];

const void *bitenc_weights_address(void);
const void *bitenc_weights_address(void) { return bitenc_weights; }
