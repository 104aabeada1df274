/* Classes and functions of transformers' text-classification pipeline. */
#include "reward_output.h"

#include "error.h"
#include "fmath.h"
#include "labels.h"

int reward_output_choose(struct reward_output *o, const struct reward_spec *spec, const struct labels *labels)
{
    *o = (struct reward_output){.n = labels->n, .label = labels->n - 1, .function = spec->function};
    if (spec->label && *spec->label) {
        o->label = labels_find(labels, spec->label);
        TRY(o->label < 0 ? -1 : 0);
    }
    if (o->n == 1 && o->function == FUNCTION_SOFTMAX)
        return error_set(ERR_INPUT,
                         "function_to_apply = \"softmax\": with a single output it is always 1; use \"none\" or \"sigmoid\"");
    return 0;
}

static double softmax(const float *z, int n, int label)
{
    double largest = z[0], sum = 0;
    for (int k = 1; k < n; k++)
        largest = z[k] > largest ? z[k] : largest;
    for (int k = 0; k < n; k++)
        sum += math_exp(z[k] - largest);
    return math_exp(z[label] - largest) / sum;
}

double reward_output_score(const struct reward_output *o, const float *logit)
{
    switch (o->function) {
    case FUNCTION_SOFTMAX:
        return softmax(logit, o->n, o->label);
    case FUNCTION_SIGMOID:
        return 1.0 / (1.0 + math_exp(-(double)logit[o->label]));
    default:
        return logit[o->label];
    }
}
