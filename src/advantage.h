/* Advantages: how much better a token did than the value function expected. */
#ifndef RLHF_SRC_ADVANTAGE_H
#define RLHF_SRC_ADVANTAGE_H

/* Generalised advantage estimates and returns of one sample, last token first.
 *
 *   delta_t = reward_t + gamma * value_{t+1} - value_t        (value_T = 0)
 *   A_t     = delta_t + gamma * lambda * A_{t+1};  return_t = A_t + value_t
 *   Source: Schulman et al. 2016 (arXiv:1506.02438), section 3.
 *
 * advantage, ret   [T] float, written; may not overlap the inputs
 * reward, value    [T] float, response tokens only (no padding)
 * gamma, lambda    in [0, 1]
 *
 * Accumulates in double. Ranks: local, same bits on every rank. Cannot fail; T = 0 writes nothing.
 */
void advantage_gae(float *advantage, float *ret, const float *reward, const float *value, int T,
                   double gamma, double lambda);

#endif
