/*
 * settings.h — reads the server's settings and its repositories again.  Loop thread.
 */
#ifndef WEIR_API_SETTINGS_H
#define WEIR_API_SETTINGS_H

struct call;

/* Answers which settings have changed, after what changed in the repositories has been loaded or
 * unloaded. */
void settings_reload(struct call *call);

#endif
