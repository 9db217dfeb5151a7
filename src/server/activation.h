/*
 * activation.h — listening sockets that systemd hands over, as sd_listen_fds(3) describes.
 */
#ifndef WEIR_SERVER_ACTIVATION_H
#define WEIR_SERVER_ACTIVATION_H

#include <stdint.h>

#define ACTIVATION_FIRST 3 /* Their descriptors follow one another from here. */

/* How many there are for this process; 0: it was started by other means.  Takes LISTEN_PID and
 * LISTEN_FDS out of the environment, so that children do not take them for theirs: ask once, before
 * there are other threads. */
uint32_t activation_take(void);

#endif
