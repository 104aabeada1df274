/* Stable forms: the largest exponent is 0. */
#include "score_loss.h"

#include "fmath.h"

double score_loss_class(double *derivative, const float *score, int n, int label)
{
    double largest = score[0], sum = 0;
    for (int i = 1; i < n; i++)
        largest = score[i] > largest ? score[i] : largest;
    for (int i = 0; i < n; i++) {
        derivative[i] = math_exp((double)score[i] - largest);
        sum += derivative[i];
    }
    for (int i = 0; i < n; i++)
        derivative[i] = derivative[i] / sum - (i == label);
    return math_log(sum) + largest - (double)score[label];
}

double score_loss_pair(double derivative[2], const float score[2], double margin, double center)
{
    const double x = (double)score[0] - (double)score[1] - margin, total = (double)score[0] + (double)score[1];
    const double e = math_exp(x > 0 ? -x : x), away = (x > 0 ? e : 1) / (1 + e); /* 1 - sigmoid(x) */
    derivative[0] = 2 * center * total - away;
    derivative[1] = 2 * center * total + away;
    return math_log(1 + e) + (x > 0 ? 0 : -x) + center * total * total;
}
