/* Losses of scores and their derivatives, of one example, in double.
 *
 *   cross-entropy   - log softmax(score)[label]                                     (transformers' sequence classification)
 *   pair            - log sigmoid(chosen - rejected - margin) + center (chosen + rejected)^2
 *                   Source: TRL's RewardTrainer; Eisenstein et al. 2023 (arXiv:2312.09244) for the second term.
 */
#ifndef RLHF_SRC_SCORE_LOSS_H
#define RLHF_SRC_SCORE_LOSS_H

/* score [n]; derivative [n] of the loss in each, written. 0 <= label < n. */
double score_loss_class(double *derivative, const float *score, int n, int label);

/* score and derivative: chosen, rejected. center 0: without the second term. */
double score_loss_pair(double derivative[2], const float score[2], double margin, double center);

#endif
