/*
 * divide.h — integer division that does not end the process.
 *
 * The least integer divided by -1 does not fit its type.  Most processors wrap it
 * around; x86 raises a fault, and ONNX Runtime's kernels, which look out for 0
 * only, let any client end the process with one Div or Mod.
 */
#ifndef WEIR_BACKEND_DIVIDE_H
#define WEIR_BACKEND_DIVIDE_H

/* From now on such a division gives the least integer again, with remainder 0, as numpy has it, in
 * every thread.  All other arithmetic faults go where they went before.  Once, before other threads
 * exist; does nothing on other processors. */
void divide_install(void);

#endif
