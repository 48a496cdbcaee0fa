/* programs.h: where bypost-dataplane and bypost-control are. */
#ifndef CONTROL_CLI_PROGRAMS_H
#define CONTROL_CLI_PROGRAMS_H

/* The path of "dataplane" or "control", malloc'd: BYPOST_DATAPLANE or BYPOST_CONTROL, else beside this binary, else where the build tree
 * has it. NULL when there is none that can be executed; *tried (malloc'd) says where it was looked for. */
char *program_find(const char *name, char **tried);

#endif
