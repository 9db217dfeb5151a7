/*
 * processes.h — how the program comes to be the zygote of its models' processes.
 */
#ifndef WEIR_SERVER_PROCESSES_H
#define WEIR_SERVER_PROCESSES_H

/* A program whose first word is this one does nothing but processes_main(), whose result is its
 * exit code. */
#define PROCESSES_WORD "model-processes"
int processes_main(void);

/* Which program to start so: this one.  Else it is "weir", found in PATH. */
void processes_use_self(void);

#endif
