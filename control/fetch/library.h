/* library.h: the text of the Redis Function library (control/settle/bypost.lua), built into the program. */
#ifndef CONTROL_FETCH_LIBRARY_H
#define CONTROL_FETCH_LIBRARY_H

const char *library_text(void);
/* The number in its line "local VERSION = N". */
unsigned library_version(void);

#endif
