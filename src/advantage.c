/* Generalised advantage estimation: one backward recursion a sample. */
#include "advantage.h"

void advantage_gae(float *advantage, float *ret, const float *reward, const float *value, int T,
                   double gamma, double lambda)
{
    double a = 0.0, next_value = 0.0;
    for (int t = T - 1; t >= 0; t--) {
        const double delta = reward[t] + gamma * next_value - value[t];
        a = delta + gamma * lambda * a;
        advantage[t] = (float)a;
        ret[t] = (float)(a + value[t]);
        next_value = value[t];
    }
}
