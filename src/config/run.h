/** @file run.h
 *  The run description: what one YAML file says, checked and with all defaults filled in.
 *
 *  Every field is registered once in schema.c: path, type, default, range, unit and meaning;
 * parser, help, man page, docs and the resolved configuration all come from that table.
 */
#ifndef FN_CONFIG_RUN_H
#define FN_CONFIG_RUN_H

#include <fieldnet/network.h>

#include "base/arena.h"
#include "base/log.h"

/** A list of texts; `text[i]` are glob patterns, names, ... */
typedef struct fn_texts {
  int count;
  const char **text;
} fn_texts;

/** A list of integers as written: one value for all axes, or one per axis, ... */
typedef struct fn_integers {
  int count;
  int64_t value[2 * FN_MAX_DIMS];
} fn_integers;

/** Free-form mapping (`model.options`, `loss.options`): scalars and nested nodes kept as parsed.
 *  Accessors are the fn_option_* functions of network.h, implemented in config/options.c. */
struct fn_options;

/** One set of files: globs per field, paired by sorted position. */
typedef struct fn_fileset {
  fn_texts input;  /**< one pattern per input field; `file.h5:/group/dataset` allowed */
  fn_texts target; /**< empty for predict */
} fn_fileset;

typedef enum fn_vector_rule { FN_VECTOR_AUTO, FN_VECTOR_YES, FN_VECTOR_NO } fn_vector_rule;

typedef struct fn_run {
  const char *path;   /**< the YAML file as given */
  const char *folder; /**< run folder: checkpoints, metrics, plots, outputs */
  uint64_t seed;
  const char *plugin; /**< shared library registering networks, losses, norms; NULL: none */

  struct {
    const char *name;
    fn_options *options;    /**< model.options */
    double init_weight_std; /**< < 0: PyTorch's default rules */
    fn_options *layers;     /**< model.layers: network as a list of layers (see models/layers.c) */
  } model;

  struct {
    const char *name; /**< mse, l1, huber, bce_with_logits, cross_entropy, or a plug-in's */
    fn_options *options;
  } loss;

  struct {
    const char *kind; /**< fields | cubes */
    fn_fileset train, validation, test;
    fn_texts input_norms, target_norms;   /**< one per field; "identity" when empty */
    fn_options *norm_options;             /**< z, dis_std, eps, ... */
    fn_texts input_vector, target_vector; /**< per field: auto, yes, no (augmentation) */
    fn_integers crop, crop_start, crop_stop, crop_step; /**< count 0: whole field / default */
    fn_integers input_pad, target_pad;
    int64_t scale_factor;
    bool augment;
    fn_integers shift;       /**< upper bounds of the random anchor shift; count 0: none */
    double add_std, mul_std; /**< < 0: off */
    bool divide;
    double shuffle_distance; /**< files */
    bool shuffle;
    int64_t prefetch;    /**< batches read ahead per rank */
    int64_t readers;     /**< reading threads per rank */
    const char *convert; /**< auto, host or device: where samples become float32 */
    const char *read;    /**< cubes: auto | collective | independent | direct */
    int64_t read_memory; /**< bytes of cubes held per rank; 0: what is needed */
    const char *stage;   /**< cubes: folder of each node that the file is copied to; NULL: none */
    struct {
      const char *file;                                   /**< prepared file; NULL: none */
      fn_texts train_seeds, validation_seeds, test_seeds; /**< numbers and ranges, see ranges.h */
      fn_texts predict; /**< files of cubes to be predicted, paths or globs; count 0: test_seeds */
      const char *sample;         /**< slices | cube */
      fn_integers axes;           /**< normals of slices; count 0: all three */
      int64_t stride;             /**< planes of a slice: its channels */
      bool compat;                /**< the slices of the original program, defect included */
      const char *symmetry;       /**< none | random | all */
      double newton_augmentation; /**< factor on Newton cubes */
      double label_smoothing;     /**< of training targets */
      int64_t window;             /**< cubes that are shuffled together, even */
      int64_t slices_per_cube;    /**< drawn per cube and epoch; 0: all */
      bool remove_mean;           /**< subtract each cube's own mean */
    } cubes;
  } data;

  struct {
    int64_t epochs;
    int64_t batch;      /**< samples per rank and step */
    int64_t accumulate; /**< micro-batches per optimizer step */
    double clip_norm;   /**< <= 0: off */
    double ema_decay;   /**< <= 0: off */
    bool sync_batch_norm;
    const char *on_nan;     /**< stop | skip */
    int64_t stop_patience;  /**< epochs; 0: never */
    double stop_threshold;  /**< of checkpoint.best; NaN: none */
    int64_t log_interval;   /**< steps */
    const char *load_state; /**< state to start from; NULL: checkpoint.h5 of the folder if there */
    bool load_strict;
    bool fresh; /**< ignore an existing checkpoint (never deletes it: refuses instead) */
    int64_t stop_after_steps; /**< stop as if interrupted after this many steps; 0: never */
    int64_t bucket_bytes, first_bucket_bytes;
    const char *allreduce;      /**< auto | host | device */
    const char *reduction;      /**< auto | mpi | ranks | node */
    const char *gradient_dtype; /**< f32 | bf16: between ranks */
  } train;

  struct {
    const char *name; /**< sgd adam adamw rmsprop adadelta adagrad nadam */
    double lr;
    double weight_decay;
    double betas[2];
    double eps; /**< < 0: the optimizer's own default */
    double momentum;
    double dampening;
    bool nesterov;
    double alpha;               /**< rmsprop */
    bool centered;              /**< rmsprop */
    double rho;                 /**< adadelta */
    double lr_decay;            /**< adagrad */
    double initial_accumulator; /**< adagrad */
    double momentum_decay;      /**< nadam */
    bool amsgrad;
  } optimizer;

  struct {
    const char *name; /**< none plateau step exponential cosine one_cycle cyclic */
    int64_t warmup_steps;
    const char *metric; /**< train | validation (plateau) */
    double factor;      /**< plateau, step and exponential gamma */
    int64_t patience;
    double threshold;
    const char *threshold_mode; /**< rel | abs */
    int64_t cooldown;
    double min_lr;
    double eps;
    int64_t step_size;                              /**< step: epochs; cyclic: steps up */
    int64_t t_max;                                  /**< cosine: epochs */
    double max_lr;                                  /**< one_cycle, cyclic */
    double pct_start, div_factor, final_div_factor; /**< one_cycle */
    const char *mode;                               /**< cyclic: triangular triangular2 exp_range */
    double gamma;                                   /**< cyclic exp_range */
    int64_t step_size_down;                         /**< cyclic: steps down; 0: as up */
  } schedule;

  struct {
    int64_t every_epochs; /**< 1: after each epoch */
    double every_minutes; /**< <= 0: off */
    int64_t keep_last;    /**< 0: all */
    int64_t keep_every;   /**< epochs; keep those for good; 0: none */
    const char *best;     /**< metric for best.h5: train | validation | accuracy | auc | f1 | "" */
    bool background;      /**< written by a thread while training goes on */
    double retry_seconds; /**< between tries of a write that failed */
    int64_t
        fall_back_after; /**< starts that died from a state until an older one is taken; 0: never */
  } checkpoint;

  struct {
    const char *time_limit; /**< auto, none, seconds or [[D-]HH:]MM:SS as SLURM writes it */
    double time_margin;     /**< seconds kept for saving and leaving */
    const char *halt_file;  /**< in the run folder */
    double hang_timeout;    /**< seconds; <= 0: no watchdog */
  } run;

  struct {
    const char *output; /**< folder of re-assembled fields, relative to the run folder */
    const char *format; /**< npy | hdf5 */
    const char *state;  /**< state to test; NULL: checkpoint.h5 */
    bool use_ema;
    double box_size; /**< Mpc/h for wave numbers; <= 0: box units */
    bool write_fields;
    bool spectra;     /**< power spectra of whole fields, which are then kept in memory */
    fn_integers tile; /**< edges of crops; none: chosen; 0: data.crop */
    bool overwrite;   /**< replace outputs of an earlier test or prediction */
    /* of cubes */
    bool without_mean;       /**< test again with cube means removed */
    int64_t baseline_seeds;  /**< training seeds for the baseline; 0: none */
    int64_t bootstrap;       /**< replicates; 0: none */
    int64_t saliency;        /**< samples per class; 0: none */
    fn_texts saliency_seeds; /**< numbers and ranges */
  } test;

  struct {
    const char *backend;   /**< reference | cpu */
    const char *precision; /**< f32 | bf16 */
    bool first_layer_f32;
    int64_t threads;       /**< per rank; 0: cores available to the rank */
    bool deterministic;    /**< false: backends may use kernels whose bits vary from run to run */
    bool fold_norms;       /**< batch norm into the convolution before it, outside training */
    const char *winograd;  /**< auto | no: fewer products for kernels of 3 and 4 cells */
    bool check;            /**< poison released memory */
    const char *recompute; /**< auto | none | elementwise | all */
    int64_t memory_budget; /**< bytes of the values of a program; 0: none */
    const char *pin;       /**< auto | yes | no: threads stay on their cores */
    const char *graphs;    /**< auto | no: steps on a device are recorded and replayed */
    bool share_devices;    /**< more ranks of a node than devices are meant */
  } compute;

  struct {
    bool tensorboard;
    bool plots;
    const char *verbosity;  /**< quiet | info | detail | debug */
    double status_interval; /**< seconds between writings of status.json */
  } report;

  char *resolved; /**< YAML with every key, ready to be written and read back */
  fn_arena *arena;
} fn_run;

/** What a command needs to be present in the file. */
typedef enum fn_command {
  FN_COMMAND_TRAIN,
  FN_COMMAND_TEST,
  FN_COMMAND_PREDICT,
  FN_COMMAND_CHECK,
  FN_COMMAND_OTHER
} fn_command;

/** Read `path`, apply `set_count` texts "key.path=value", check everything that can be checked
 *  without reading data. On FN_ERR_CONFIG, *errors holds every error as "file:line:column: message"
 *  with the offending line and a caret (malloc'ed text, to be freed); it is NULL otherwise.
 *  Not collective: every rank reads the same file; rank 0 alone should print. */
fn_status fn_run_load(const char *path, const char *const *set, int set_count, fn_command command,
                      fn_run **run, char **errors);
/** Parse text instead of a file (a configuration stored in a checkpoint). */
fn_status fn_run_parse(const char *text, const char *name, const char *const *set, int set_count,
                       fn_command command, fn_run **run, char **errors);
void fn_run_destroy(fn_run *run);

/** "file:line:column" of a key's value ("--set key=value" when it came from there), or the file and
 *  the key when it has its default. Lives as long as the run; never NULL. */
const char *fn_run_where(const fn_run *run, const char *key);
/** Record FN_ERR_CONFIG about a key in the style of fn_run_load: position, message, the offending
 *  line and a caret. For what only later rooms can check. */
fn_status fn_run_fail(const fn_run *run, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Which messages the run wants, report.verbosity. */
fn_level fn_run_verbosity(const fn_run *run);
/** Whether the run's data are cubes with two classes (data.kind: cubes). */
bool fn_run_has_cubes(const fn_run *run);
/** Whether the outputs of a run on cubes are logits: not when the loss takes them for values near 0
 *  and 1 (mse, l1, huber). */
bool fn_run_has_logits(const fn_run *run);
/** Whether the run names data for a stage: "train", "validation" or "test". A stage of fields has
 *  them when its inputs are named, and its targets too if `target`. */
bool fn_run_has_data(const fn_run *run, const char *stage, bool target);

/** Keys whose values differ between two runs: calls report(user, key, old, new) for each. */
fn_status fn_run_compare(const char *old_resolved, const fn_run *run,
                         void (*report)(void *user, const char *key, const char *before,
                                        const char *after),
                         void *user);

#endif
