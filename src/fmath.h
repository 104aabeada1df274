/* Elementary functions in double with a written sequence of operations: the same bits on every
 * machine.
 *
 * The C library's exp, log, sin, cos, tanh and pow differ between its versions and between
 * processors (it picks its code at run time), so nothing that decides a result may call them. These
 * use +, -, *, /, floor and explicit fma alone. They assume round to nearest. Relative errors are
 * below 2^-48; most results are within 2 units in the last place.
 */
#ifndef RLHF_SRC_FMATH_H
#define RLHF_SRC_FMATH_H

#include <stdint.h>

double math_exp(double x);   /* 0 below -745.2, infinity above 709.79 */
double math_expm1(double x); /* e^x - 1, accurate near 0 */
double math_log(double x);   /* -infinity at 0, NaN below */
double math_sin(double x);   /* radians, |x| <= 2^30; NaN beyond */
double math_cos(double x);   /* radians, |x| <= 2^30; NaN beyond */
double math_tanh(double x);

/* base^n by repeated squaring in double-double, so that the error does not grow with n. n may be
 * negative. */
double math_pow_int(double base, int64_t n);

/* base^exponent = e^(exponent * log base), the product in double-double. base > 0; NaN below 0;
 * 0^exponent is 0, 1 or infinity by the sign of the exponent. */
double math_pow(double base, double exponent);

#endif
