/* The file that protoc wrote, as it is. */
__asm__(".section .rodata\n"
        ".global proto_descriptors\n"
        ".hidden proto_descriptors\n"
        "proto_descriptors:\n"
        ".incbin \"" PROTO_DESCRIPTORS "\"\n"
        ".global proto_descriptors_end\n"
        ".hidden proto_descriptors_end\n"
        "proto_descriptors_end:\n"
        ".byte 0\n"
        ".previous\n");
