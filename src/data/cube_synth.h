/** @file cube_synth.h
 *  Random potentials as a source of cubes: GR is the second theory of fn_synth_potential().
 */
#ifndef FN_DATA_CUBE_SYNTH_H
#define FN_DATA_CUBE_SYNTH_H

#include "data/cube_source.h"
#include "data/synth.h"

/** A cube is made whenever it is read; no more than one is in memory. */
fn_status fn_synth_cubes_create(const fn_potential_options *options, fn_cube_source **source);

#endif
