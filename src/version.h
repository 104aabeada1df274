/* What --version says: this build, the libraries it runs with, the processor. */
#ifndef RLHF_SRC_VERSION_H
#define RLHF_SRC_VERSION_H

#include "text.h"

void version_describe(struct text *out); /* appends lines; needs no ranks */

#endif
