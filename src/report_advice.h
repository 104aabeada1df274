/* Advice: lines on a run whose numbers look wrong. */
#ifndef RLHF_SRC_REPORT_ADVICE_H
#define RLHF_SRC_REPORT_ADVICE_H

#include "past_run.h"

/* Appends a Markdown list, one line for each thing found; nothing when all looks well. Returns the number of lines. */
int report_advice(struct text *out, const struct past_run *r);

#endif
