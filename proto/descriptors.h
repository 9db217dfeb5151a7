/*
 * descriptors.h — a serialized FileDescriptorSet of every .proto file here, for reflection.
 */
#ifndef WEIR_PROTO_DESCRIPTORS_H
#define WEIR_PROTO_DESCRIPTORS_H

extern const unsigned char proto_descriptors[];
extern const unsigned char proto_descriptors_end[];

#endif
