/** @file bench_internal.h
 *  Shared by the files of the bench command.
 */
#ifndef FN_RUN_BENCH_INTERNAL_H
#define FN_RUN_BENCH_INTERNAL_H

#include "base/text.h"
#include "learn/learn.h"
#include "run/bench.h"

enum { BENCH_KINDS_MOST = 64, BENCH_NAME = 96, BENCH_BUCKETS_MOST = 8, BENCH_TIMERS = 3 };

/** Parts of a step, one after the other: they add up to it. */
typedef enum bench_phase {
  BENCH_WAIT,      /**< for a batch to be read */
  BENCH_FEED,      /**< batch copied into the program */
  BENCH_FORWARD,   /**< up to the loss */
  BENCH_BACKWARD,  /**< gradients */
  BENCH_EXPOSED,   /**< waiting for reductions after the backward pass */
  BENCH_AGREE,     /**< small collective calls: weights of ranks, loss, running statistics */
  BENCH_OPTIMIZER, /**< gradient norm and update */
  BENCH_PHASES
} bench_phase;

/** One kernel, or all kernels of one kind. Times in seconds per step, of this rank. */
typedef struct bench_row {
  char name[BENCH_NAME];
  const char *backend;
  fn_shape shape;
  int kernels;
  double seconds;
  double alone; /**< of its library primitive timed alone; 0: none */
  double flops, bytes;
  double bound; /**< roofline: the larger of flops at peak rate and bytes at copy speed */
  double least; /**< the larger of the primitive alone and bytes at copy speed */
} bench_row;

/** Rates of this rank's share of the machine, all ranks working at once. */
typedef struct bench_machine {
  double flops; /**< of the best convolution, per second */
  double bytes; /**< read and written by a copy, per second */
  char conv[64];
} bench_machine;

/** Steps of a device, each put on its streams while the one before still runs. Seconds a step, of
 *  the slowest rank. */
typedef struct bench_chain {
  int64_t steps;     /**< 0: none was taken */
  double step;       /**< from step to step, by the host's clock */
  double device;     /**< likewise, by the device's clock */
  double host;       /**< in which the host put a step on its way: waits are no part of it */
  double input_wait; /**< for a batch to be read */
} bench_chain;

/** One mode with steps. Where ranks differ: means over ranks, and a step lasts as long as that of
 *  the slowest rank. */
typedef struct bench_steps {
  fn_bench_mode mode;
  bool inference;
  bool measured;
  int64_t batch;                      /**< samples of all ranks */
  double *step;                       /**< seconds, ascending once finished; shape [steps] */
  double *compute;                    /**< forward, backward and optimizer; shape [steps] */
  double *ratio, *bound_ratio;        /**< compute over the two sums; shape [steps] */
  double *each;                       /**< primitive alone; shape [steps][kernels] */
  double step_time, compute_time;     /**< medians */
  double step_mean;                   /**< over steps and ranks: what the phases add up to */
  double phase[BENCH_PHASES];         /**< means over steps and ranks */
  double busy;                        /**< mean time in which reductions were under way */
  double exposed_least, exposed_most; /**< means over steps of the smallest and largest rank's */
  double alone, least;                /**< sums over operators, means over steps */
  double optimizer_least;             /**< bytes of the optimizer at copy speed; part of `least` */
  double ratio_median, bound_ratio_median; /**< 0: nothing to compare with */
  bench_row *kernel;                       /**< shape [kernel_count] */
  int kernel_count;
  bench_row kind[BENCH_KINDS_MOST];
  int kind_count;
  int backward_from;     /**< first kernel of the backward pass */
  double kernel_time[2]; /**< seconds of a device's kernels before and from there, timed steps */
  bench_chain chain;     /**< on a device */
  size_t peak;           /**< bytes resident, largest rank */
  fn_program_memory memory;
} bench_steps;

typedef struct bench_io {
  bool measured;
  double seconds;        /**< per batch, slowest rank, median */
  double samples, bytes; /**< per second, of all ranks */
  double sample_bytes;   /**< of one sample between host and network */
} bench_io;

typedef struct bench_bucket {
  int64_t bytes; /**< train.bucket_bytes tried */
  int buckets;
  double seconds; /**< all gradients, median, slowest rank */
  double
      sent; /**< bytes of all gradients that the rank which sends most hands to MPI; < 0: unknown */
  double shared; /**< likewise written to and read from memory shared with other ranks */
} bench_bucket;

typedef struct bench_comm {
  bool measured;
  int64_t gradient_bytes;
  char how[400]; /**< fn_reducer_describe, of buckets as configured */
  bench_bucket bucket[BENCH_BUCKETS_MOST];
  int count, best;
} bench_comm;

/** From the start of the process to the end of the first step. */
typedef struct bench_start {
  double launch;  /**< until the measurement began: loading, MPI, configuration */
  double data;    /**< files found, opened and checked */
  double plan;    /**< graph, layouts, memory */
  double prepare; /**< memory allocated, kernels and primitives created, optimizer */
  double read;    /**< first batch */
  double first_step;
} bench_start;

/** Saves beside training, medians over turns without and with a save; rank 0. */
typedef struct bench_checkpoint {
  bool measured, background;
  int64_t rounds, steps; /**< turns of each kind, steps of a turn */
  int64_t bytes;         /**< of a state's file */
  double snapshot;       /**< seconds of the copy, which training waits for */
  double write;          /**< seconds until the state is in place */
  double step;           /**< seconds of a step without a save */
  double saving_step;    /**< of a save and the step after it */
  double extra;          /**< by which a turn with a save is longer */
} bench_checkpoint;

typedef struct bench {
  const fn_run *run;
  fn_dist *dist;
  const fn_bench_options *options;
  FILE *out; /**< NULL but on rank 0 */
  fn_bench_mode mode;
  fn_dataset *dataset; /**< NULL: none */
  char source[512];    /**< where sizes come from */
  fn_dataset_info info;
  fn_engine *engine;
  fn_program *program;
  fn_device *device; /**< NULL: the host */
  fn_event *timer[BENCH_TIMERS];
  fn_parameters *parameters;
  fn_optimizer *optimizer;
  fn_judge *judge;
  fn_reducer *reducer;
  fn_timeline *timeline; /**< NULL: none wanted */
  fn_batch random;       /**< for synthetic steps */
  bool fed;              /**< the program's inputs are those */
  bool beside;           /**< what was timed beside the steps has taken memory of its own */
  size_t peak;           /**< bytes resident, before that */
  bench_machine machine;
  bench_start start;
  bench_steps steps[2]; /**< full, synthetic */
  bench_io io;
  bench_comm comm;
  bench_checkpoint checkpoint;
} bench;

/* bench_step.c */
/** Program, optimizer, reducer. Not collective but for the reducer's creation. */
fn_status fn_bench_prepare(bench *b);
/** Steps of one mode, and their primitives alone. Collective. */
fn_status fn_bench_take_steps(bench *b, bench_steps *s);
/** The library's primitive of one kernel alone, after a run of the program; 0: it has none. */
fn_status fn_bench_time_primitive(const fn_program *program, int index, double *seconds);
/** One training step on random numbers. Collective. */
fn_status fn_bench_one_step(bench *b);
/** Steps on request from standard input. */
fn_status fn_bench_lockstep(bench *b);
/** Seconds of a step that training reaches: in the chain, where there is one. */
double fn_bench_pace(const bench_steps *s);
/** Whether the device waits for the host, not the host for the device. */
bool fn_bench_is_launch_bound(const bench_chain *chain);
/** Before steps without data: their batch, always the same. On a device it stays where it is, for
 *  copies are no part of such a step. Nothing for steps with data. */
fn_status fn_bench_feed_random(bench *b, bool reads);
/** Parts of a step: run the program, say which buckets are ready; what ranks agree on besides
 *  gradients; judge and optimizer; what became of the step, of which the host waits to hear. */
fn_status fn_bench_put_program(bench *b, const fn_batch *batch);
fn_status fn_bench_agree(const bench *b);
fn_status fn_bench_put_update(bench *b);
fn_status fn_bench_settle(const bench *b);
void fn_bench_release(bench *b);

/* bench_rows.c */
/** Fill kernels and kinds from the program's times, bounds from the machine's. */
fn_status fn_bench_collect(bench *b, bench_steps *s);

/* bench_machine.c */
/** Rates of a convolution and a copy, all ranks at once. Collective. */
fn_status fn_bench_measure_machine(const bench *b, bench_machine *machine);

/* bench_io.c */
/** Batches of the training set, epoch after epoch. Open, next and close are collective for data
 * sets of cubes; all ranks have the same number of batches. */
typedef struct bench_reader {
  const bench *bench;
  fn_loader *loader;
  int64_t epoch;
  int64_t least; /**< batches of an epoch, whose samples may come again for that */
  bool noted;    /**< reads go into the timeline */
} bench_reader;
/** `least`: batches that are to come without a new epoch, which would read ahead from nothing;
 * cubes have epochs as they are. */
fn_status fn_bench_reader_open(const bench *b, int64_t least, bench_reader *reader);
/** From now on reads go into the timeline, where there is one. */
void fn_bench_reader_note(bench_reader *reader);
fn_status fn_bench_reader_next(bench_reader *reader, const fn_batch **batch);
void fn_bench_reader_close(bench_reader *reader);
fn_status fn_bench_read(bench *b);
fn_status fn_bench_reduce(bench *b);

/* bench_chain.c */
/** Put `lead` + `steps` steps on a device's streams, one behind the other, and time the latter.
 * With `reader` batches are waited for and copied. Collective. */
fn_status fn_bench_chain(bench *b, bench_reader *reader, int64_t lead, int64_t steps,
                         bench_chain *result);
/** Steps before those that count: until host and device are in step, and what was read ahead while
 *  nobody took it is used up. */
int64_t fn_bench_chain_lead(const bench *b, bool reads);

/* bench_checkpoint.c */
/** Steps in turns without and with a save. Collective. */
fn_status fn_bench_saves(bench *b);
void fn_bench_print_saves(const bench *b);

/* bench_print.c */
void fn_bench_print_head(const bench *b);
void fn_bench_print_steps(const bench *b, const bench_steps *s);
void fn_bench_print_io(const bench *b);
void fn_bench_print_comm(const bench *b);
void fn_bench_print_start(const bench *b);
void fn_bench_print_all(const bench *b);

/* bench_json.c */
void fn_bench_write_json(const bench *b, fn_text *text);
/** Ratios of `after` over `before`, texts of fn_bench_write_json; names are for messages. */
fn_status fn_bench_compare(const char *before, const char *before_name, const char *after,
                           const char *after_name, FILE *out);

extern const char *const fn_bench_phase_names[BENCH_PHASES]; /**< as in JSON */

double fn_bench_median(double *values, int64_t count); /**< sorts */
/** Least, mean and largest over the ranks of one number per rank. Collective. */
typedef struct bench_spread {
  double least, mean, most;
} bench_spread;
fn_status fn_bench_over_ranks(const fn_dist *dist, double value, bench_spread *spread);

#endif
