/* The table of configuration keys. One entry per field of fn_run, in the order of that struct. */
#include "config/schema.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

#define KEY(path_, type_, field_)                                                                  \
  .path = path_, .type = FN_KEY_##type_, .offset = offsetof(fn_run, field_)
#define FROM(low) .ranged = true, .min = (low), .max = INFINITY
#define ABOVE(low) .ranged = true, .above = true, .min = (low), .max = INFINITY
#define WITHIN(low, high) .ranged = true, .min = (low), .max = (high)
#define OFF(value) .fallback = "null", .nullable = true, .off = (value)

/* clang-format off: a table reads better in columns of its own */
static const fn_section sections[] = {
    {"model", "The network."},
    {"loss", "What training minimises."},
    {"data", "Which fields are read, and what is done to them before the network sees them."},
    {"data.train", "Fields to train on."},
    {"data.validation", "Fields to validate on after every epoch; input and target, or neither."},
    {"data.test", "Fields for `fieldnet test` and, without targets, `fieldnet predict`."},
    {"data.cubes",
     "Cubes with two classes, GR and Newton, in pairs of one seed; with data.kind: cubes, "
     "instead of data.train and its like."},
    {"train", "The training loop."},
    {"optimizer", "How weights follow gradients. Definitions and defaults are those of PyTorch."},
    {"schedule", "How the learning rate changes."},
    {"checkpoint", "When states are saved and which are kept."},
    {"run", "When a run ends by itself."},
    {"test", "What `fieldnet test` and `fieldnet predict` write."},
    {"compute", "How the network is computed."},
    {"report", "What is written beside checkpoints."},
};

static const fn_key keys[] = {
    {KEY("folder", TEXT, folder), .fallback = "null",
     .derived = "name of the run file without folder and extension",
     .meaning = "Run folder for checkpoints, metrics, plots and outputs; relative to the current "
                "directory."},
    {KEY("seed", NATURAL, seed), .fallback = "42", .map2map = "seed",
     .meaning = "Seed of initial weights, sample order, augmentation, dropout and noise."},
    {KEY("plugin", TEXT, plugin), OFF(0), .map2map = "callback-at",
     .meaning = "Shared library that registers networks, losses and norms; relative to the current "
                "directory."},

    {KEY("model.name", TEXT, model.name), OFF(0), .map2map = "model",
     .meaning = "Name of a built-in or registered network. Either this or model.layers is needed."},
    {KEY("model.options", MAPPING, model.options), OFF(0), .map2map = "misc-kwargs",
     .meaning = "Options of the network, by name; one that the network does not know is an error."},
    {KEY("model.init_weight_std", REAL, model.init_weight_std), OFF(-1), FROM(0),
     .map2map = "init-weight-std",
     .meaning = "Standard deviation of normally drawn initial weights (normalisation scales: "
                "around 1, shifts: 0); "
                "null: PyTorch's default rules."},
    {KEY("model.layers", LIST, model.layers), OFF(0),
     .meaning = "The network as a list of layers, instead of model.name."},

    {KEY("loss.name", TEXT, loss.name), .fallback = "mse", .map2map = "criterion",
     .meaning =
         "mse, l1, huber, bce_with_logits, cross_entropy, or a loss that the plug-in registers."},
    {KEY("loss.options", MAPPING, loss.options), OFF(0),
     .meaning = "Options of the loss, by name; one that the loss does not know is an error."},

    {KEY("data.kind", CHOICE, data.kind), .fallback = "fields", .choices = "fields|cubes",
     .meaning = "Fields paired with target fields, or cubes with two classes."},
    {KEY("data.train.input", TEXTS, data.train.input), OFF(0), .map2map = "train-in-patterns",
     .meaning = "Glob patterns of the input fields, one per field; `file.h5:/group/dataset` names "
                "a dataset."},
    {KEY("data.train.target", TEXTS, data.train.target), OFF(0), .map2map = "train-tgt-patterns",
     .meaning = "Glob patterns of the target fields, paired with the inputs by sorted position."},
    {KEY("data.validation.input", TEXTS, data.validation.input), OFF(0),
     .map2map = "val-in-patterns", .meaning = "Glob patterns of the input fields."},
    {KEY("data.validation.target", TEXTS, data.validation.target), OFF(0),
     .map2map = "val-tgt-patterns", .meaning = "Glob patterns of the target fields."},
    {KEY("data.test.input", TEXTS, data.test.input), OFF(0), .map2map = "test-in-patterns",
     .meaning = "Glob patterns of the input fields."},
    {KEY("data.test.target", TEXTS, data.test.target), OFF(0), .map2map = "test-tgt-patterns",
     .meaning = "Glob patterns of the target fields; not needed to predict."},
    {KEY("data.input_norms", TEXTS, data.input_norms), OFF(0), .map2map = "in-norms",
     .meaning = "Normalisation of each input field, e.g. cosmology.dis; null: identity."},
    {KEY("data.target_norms", TEXTS, data.target_norms), OFF(0), .map2map = "tgt-norms",
     .meaning = "Normalisation of each target field; null: identity."},
    {KEY("data.norm_options", MAPPING, data.norm_options), OFF(0), .map2map = "misc-kwargs",
     .meaning = "Options of the normalisations, e.g. z, dis_std, eps."},
    {KEY("data.input_vector", CHOICES, data.input_vector), OFF(0), .choices = "auto|yes|no",
     .meaning = "Whether augmentation rotates the components of each input field as a vector; auto "
                "(and null): "
                "when it has as many channels as space has axes. One word stands for all fields."},
    {KEY("data.target_vector", CHOICES, data.target_vector), OFF(0), .choices = "auto|yes|no",
     .meaning = "The same for each target field."},
    {KEY("data.crop", INTEGERS, data.crop), OFF(0), FROM(1), .unit = "cells", .map2map = "crop",
     .meaning = "Edge of a crop at input resolution, one for all axes or one per axis; null: the "
                "whole field."},
    {KEY("data.crop_start", INTEGERS, data.crop_start), OFF(0), FROM(0), .unit = "cells",
     .map2map = "crop-start",
     .meaning = "First anchor of crops, one for all axes or one per axis; null: 0."},
    {KEY("data.crop_stop", INTEGERS, data.crop_stop), OFF(0), FROM(1), .unit = "cells",
     .map2map = "crop-stop",
     .meaning = "Anchors stay below this; it does not limit where a crop ends. null: the size of "
                "the field."},
    {KEY("data.crop_step", INTEGERS, data.crop_step), OFF(0), FROM(1), .unit = "cells",
     .map2map = "crop-step",
     .meaning = "Distance of anchors, one for all axes or one per axis; null: data.crop."},
    {KEY("data.input_pad", INTEGERS, data.input_pad), .fallback = "0", FROM(0), .unit = "cells",
     .map2map = "in-pad",
     .meaning = "Periodic margin around input crops: one for all sides, one per axis, or low and "
                "high per axis."},
    {KEY("data.target_pad", INTEGERS, data.target_pad), .fallback = "0", FROM(0), .unit = "cells",
     .map2map = "tgt-pad",
     .meaning = "The same around target crops, in cells of the input resolution."},
    {KEY("data.scale_factor", INTEGER, data.scale_factor), .fallback = "1", FROM(1),
     .map2map = "scale-factor",
     .meaning = "Cells of the target per cell of the input along each axis."},
    {KEY("data.augment", FLAG, data.augment), .fallback = "false", .map2map = "augment",
     .meaning = "Flip and permute axes of training samples at random."},
    {KEY("data.shift", INTEGERS, data.shift), OFF(0), FROM(1), .unit = "cells",
     .map2map = "aug-shift",
     .meaning = "Anchors of training crops move by a random number of cells below this; null: not "
                "at all."},
    {KEY("data.add_std", REAL, data.add_std), OFF(-1), FROM(0), .map2map = "aug-add",
     .meaning =
         "Standard deviation of a random constant added to each training sample; null: none."},
    {KEY("data.mul_std", REAL, data.mul_std), OFF(-1), FROM(0), .map2map = "aug-mul",
     .meaning = "Standard deviation of the logarithm of a random factor on each training sample; "
                "null: none."},
    {KEY("data.divide", FLAG, data.divide), .fallback = "false", .map2map = "div-data",
     .meaning = "Keep the crops of a file near each other in the order of an epoch, so that each "
                "rank reads few files."},
    {KEY("data.shuffle_distance", REAL, data.shuffle_distance), .fallback = "1", FROM(0),
     .unit = "files", .map2map = "div-shuffle-dist",
     .meaning = "How far crops move from their file's place in the order, with data.divide."},
    {KEY("data.shuffle", FLAG, data.shuffle), .fallback = "true",
     .meaning = "Draw a new order of training samples for each epoch."},
    {KEY("data.prefetch", INTEGER, data.prefetch), .fallback = "2", WITHIN(1, 1024),
     .unit = "batches", .meaning = "Batches read ahead per rank."},
    {KEY("data.readers", INTEGER, data.readers), .fallback = "2", WITHIN(1, 256), .unit = "threads",
     .map2map = "loader-workers", .meaning = "Threads that read per rank."},
    {KEY("data.convert", CHOICE, data.convert), .fallback = "auto", .choices = "auto|host|device",
     .meaning = "Where samples are converted to float32, normalised and turned: on the host by its "
                "readers, or on the device, to which numbers travel as their files have them; see "
                "docs/gpu.md. auto: on the device where the backend has one. Results have the same "
                "bits, but for logarithms and exponentials, which a GPU may round differently."},
    {KEY("data.read", CHOICE, data.read), .fallback = "auto",
     .choices = "auto|collective|independent|direct",
     .meaning = "How cubes are read: by all ranks together through parallel HDF5, by each rank "
                "through HDF5, or by each rank straight from where they lie in the file; see "
                "docs/cubes.md."},
    {KEY("data.read_memory", INTEGER, data.read_memory), OFF(0), FROM(1), .unit = "bytes",
     .meaning = "Memory per rank for cubes that are read ahead or in use; null: as much as is "
                "needed, and half as much again."},
    {KEY("data.stage", TEXT, data.stage), OFF(0),
     .meaning = "Folder on a disk of each node to which the file of cubes is copied before it is "
                "read, and where later runs find it; null: read the file where it is."},
    {KEY("data.cubes.file", TEXT, data.cubes.file), OFF(0),
     .meaning = "Prepared file of cubes; relative to the current directory."},
    {KEY("data.cubes.train_seeds", TEXTS, data.cubes.train_seeds), OFF(0),
     .meaning = "Seeds to train on, numbers and ranges, e.g. 0-1499,1600; both cubes of a seed."},
    {KEY("data.cubes.validation_seeds", TEXTS, data.cubes.validation_seeds), OFF(0),
     .meaning = "Seeds to validate on after every epoch; null: no validation."},
    {KEY("data.cubes.test_seeds", TEXTS, data.cubes.test_seeds), OFF(0),
     .meaning = "Seeds for `fieldnet test` and, unless data.cubes.predict names files, for "
                "`fieldnet predict`."},
    {KEY("data.cubes.predict", TEXTS, data.cubes.predict), OFF(0),
     .meaning = "Files of prepared cubes for `fieldnet predict`, glob patterns, relative to the "
                "current directory. Every cube in them, without labels; null: both cubes of "
                "data.cubes.test_seeds, and without those all of data.cubes.file."},
    {KEY("data.cubes.sample", CHOICE, data.cubes.sample), .fallback = "slices",
     .choices = "slices|cube",
     .meaning = "A sample is a slice of a cube (two-dimensional), or a whole cube."},
    {KEY("data.cubes.axes", INTEGERS, data.cubes.axes), OFF(0), WITHIN(0, 2),
     .meaning = "Axes of the cube that slices are normal to; null: all three."},
    {KEY("data.cubes.stride", INTEGER, data.cubes.stride), .fallback = "1", FROM(1),
     .unit = "planes",
     .meaning = "Consecutive planes that make one slice, as its channels; must divide the edge."},
    {KEY("data.cubes.compat", FLAG, data.cubes.compat), .fallback = "false",
     .meaning = "Slices as the original program cut them: axis 1 transposed, axis 0 transposed, "
                "axis 0 again, axis 2 never. Only to reproduce old curves."},
    {KEY("data.cubes.symmetry", CHOICE, data.cubes.symmetry), .fallback = "random",
     .choices = "none|random|all",
     .meaning = "Turns and flips of training slices: none, one of the eight at random, or all "
                "eight as samples of their own. Validation and test see each slice as it is."},
    {KEY("data.cubes.newton_augmentation", REAL, data.cubes.newton_augmentation), .fallback = "1",
     .meaning = "Factor on standardised Newton cubes, of all stages; other than 1 it makes the "
                "classes differ, to try a set-up."},
    {KEY("data.cubes.label_smoothing", REAL, data.cubes.label_smoothing), .fallback = "0",
     .ranged = true, .below = true, .min = 0, .max = 0.5,
     .meaning = "Training targets are this and 1 minus this instead of 0 and 1; validation and "
                "test keep 0 and 1."},
    {KEY("data.cubes.window", INTEGER, data.cubes.window), .fallback = "8", FROM(2),
     .unit = "cubes",
     .meaning = "Cubes whose samples are shuffled together, both of each seed; even. Each rank "
                "holds about two windows in memory."},
    {KEY("data.cubes.slices_per_cube", INTEGER, data.cubes.slices_per_cube), .fallback = "0",
     FROM(0), .unit = "slices",
     .meaning = "Training slices drawn from each cube for each epoch; 0: all."},
    {KEY("data.cubes.remove_mean", FLAG, data.cubes.remove_mean), .fallback = "false",
     .meaning = "Subtract from each cube its own mean, which alone tells the classes apart."},

    {KEY("train.epochs", INTEGER, train.epochs), .fallback = "128", FROM(1), .unit = "epochs",
     .map2map = "epochs", .meaning = "Epochs of the whole run, those before a resume included."},
    {KEY("train.batch", INTEGER, train.batch), .fallback = "null", .off = 1, FROM(1),
     .unit = "samples", .map2map = "batch-size", .derived = "required to train; else 1",
     .meaning = "Samples per rank and step."},
    {KEY("train.accumulate", INTEGER, train.accumulate), .fallback = "1", FROM(1),
     .unit = "batches", .meaning = "Batches whose gradients are averaged for one optimizer step."},
    {KEY("train.clip_norm", REAL, train.clip_norm), OFF(0), ABOVE(0),
     .meaning =
         "Largest L2 norm of the whole gradient; longer ones are scaled down. null: no clipping."},
    {KEY("train.ema_decay", REAL, train.ema_decay), OFF(0), .ranged = true, .above = true,
     .below = true, .min = 0, .max = 1,
     .meaning =
         "Decay per step of the exponential moving average of the weights; null: none is kept."},
    {KEY("train.sync_batch_norm", FLAG, train.sync_batch_norm), .fallback = "false",
     .meaning = "Take batch statistics over all ranks instead of each rank alone."},
    {KEY("train.on_nan", CHOICE, train.on_nan), .fallback = "stop", .choices = "stop|skip",
     .map2map = "detect-anomaly",
     .meaning = "When loss or gradient is not finite: stop the run, or skip the step."},
    {KEY("train.stop_patience", INTEGER, train.stop_patience), .fallback = "0", FROM(0),
     .unit = "epochs",
     .meaning = "Stop after so many epochs without a better value of checkpoint.best; 0: never."},
    {KEY("train.stop_threshold", REAL, train.stop_threshold), .fallback = "null", .nullable = true,
     .off = (double)NAN,
     .meaning = "Stop when checkpoint.best reaches this: a loss at most, a metric at least; null: "
                "never."},
    {KEY("train.log_interval", INTEGER, train.log_interval), .fallback = "100", FROM(1),
     .unit = "steps", .map2map = "log-interval",
     .meaning = "Steps between lines of progress and step metrics."},
    {KEY("train.load_state", TEXT, train.load_state), OFF(0), .map2map = "load-state",
     .meaning = "State to start from as long as the run folder has none of its own, from which a "
                "run always goes on."},
    {KEY("train.load_strict", FLAG, train.load_strict), .fallback = "true",
     .map2map = "load-state-non-strict",
     .meaning = "Whether parameters missing or unexpected in a state are errors; else warnings."},
    {KEY("train.fresh", FLAG, train.fresh), .fallback = "false",
     .meaning = "Demand a fresh start: refuse to run when the folder already holds a checkpoint."},
    {KEY("train.stop_after_steps", INTEGER, train.stop_after_steps), OFF(0), FROM(1),
     .unit = "steps",
     .meaning =
         "Save and stop, as if interrupted, after this many steps of this start; null: never."},
    {KEY("train.bucket_bytes", INTEGER, train.bucket_bytes), .fallback = "26214400", FROM(1),
     .unit = "bytes",
     .meaning =
         "Largest size of the gradient buckets that ranks sum while the backward pass goes on; "
         "they are an eighth of all gradients where that is less."},
    {KEY("train.first_bucket_bytes", INTEGER, train.first_bucket_bytes), .fallback = "1048576",
     FROM(1), .unit = "bytes",
     .meaning = "Size of the first bucket, small so that communication starts early."},

    {KEY("train.gradient_dtype", CHOICE, train.gradient_dtype), .fallback = "f32",
     .choices = "f32|bf16",
     .meaning = "Type in which gradients travel between ranks, and to and from a GPU. bf16 halves "
                "the bytes; sums are made in float32, each rank's part and the sum rounded to 8 "
                "bits."},
    {KEY("train.reduction", CHOICE, train.reduction), .fallback = "auto",
     .choices = "auto|mpi|ranks|node",
     .meaning = "Who sums gradients. node: ranks of a node in memory they share, then between "
                "nodes; ranks: each rank a part of them, sent to it; mpi: MPI_Iallreduce. auto: "
                "node, or mpi for train.allreduce: device."},
    {KEY("train.allreduce", CHOICE, train.allreduce), .fallback = "auto",
     .choices = "auto|host|device",
     .meaning = "On GPUs, what is summed. host: copies in pinned memory; device: the GPU's memory, "
                "by an MPI library whose MPI_Iallreduce takes it; auto: host, but with "
                "train.reduction: mpi device where the library says that it can."},
    {KEY("optimizer.name", CHOICE, optimizer.name), .fallback = "adam", .map2map = "optimizer",
     .choices = "sgd|adam|adamw|rmsprop|adadelta|adagrad|nadam", .meaning = "Update rule."},
    {KEY("optimizer.lr", REAL, optimizer.lr), .fallback = "null", .nullable = true, .off = 0,
     ABOVE(0), .map2map = "lr", .derived = "required to train",
     .meaning = "Learning rate, before the schedule."},
    {KEY("optimizer.weight_decay", REAL, optimizer.weight_decay), .fallback = "null",
     .derived = "0.01 for adamw, else 0", FROM(0),
     .meaning =
         "Decay of the weights: added to the gradient, but adamw decays the weights themselves."},
    {KEY("optimizer.betas", PAIR, optimizer.betas), .fallback = "[0.9, 0.999]", .ranged = true,
     .below = true, .min = 0, .max = 1,
     .meaning = "adam, adamw, nadam: decay of the running means of gradient and squared gradient."},
    {KEY("optimizer.eps", REAL, optimizer.eps), .fallback = "null",
     .derived = "1e-6 for adadelta, 1e-10 for adagrad, else 1e-8", FROM(0),
     .meaning = "Added to the denominator; not used by sgd."},
    {KEY("optimizer.momentum", REAL, optimizer.momentum), .fallback = "0", FROM(0),
     .meaning = "sgd, rmsprop: momentum."},
    {KEY("optimizer.dampening", REAL, optimizer.dampening), .fallback = "0", FROM(0),
     .meaning = "sgd: part of the gradient that does not enter the momentum."},
    {KEY("optimizer.nesterov", FLAG, optimizer.nesterov), .fallback = "false",
     .meaning = "sgd: Nesterov's momentum; needs momentum and no dampening."},
    {KEY("optimizer.alpha", REAL, optimizer.alpha), .fallback = "0.99", WITHIN(0, 1),
     .meaning = "rmsprop: decay of the running mean of squared gradients."},
    {KEY("optimizer.centered", FLAG, optimizer.centered), .fallback = "false",
     .meaning = "rmsprop: divide by the standard deviation instead of the root mean square."},
    {KEY("optimizer.rho", REAL, optimizer.rho), .fallback = "0.9", WITHIN(0, 1),
     .meaning = "adadelta: decay of the running means of squares."},
    {KEY("optimizer.lr_decay", REAL, optimizer.lr_decay), .fallback = "0", FROM(0),
     .meaning = "adagrad: the rate is divided by 1 + lr_decay times the steps done."},
    {KEY("optimizer.initial_accumulator", REAL, optimizer.initial_accumulator), .fallback = "0",
     FROM(0), .meaning = "adagrad: start of the sum of squared gradients."},
    {KEY("optimizer.momentum_decay", REAL, optimizer.momentum_decay), .fallback = "0.004", FROM(0),
     .meaning = "nadam: decay of the momentum schedule."},
    {KEY("optimizer.amsgrad", FLAG, optimizer.amsgrad), .fallback = "false",
     .meaning = "adam, adamw: divide by the largest running mean so far."},

    {KEY("schedule.name", CHOICE, schedule.name), .fallback = "none",
     .map2map = "reduce-lr-on-plateau",
     .choices = "none|plateau|step|exponential|cosine|one_cycle|cyclic",
     .meaning = "How the learning rate changes: by epochs (plateau, step, exponential, cosine) or "
                "steps (one_cycle, cyclic)."},
    {KEY("schedule.warmup_steps", INTEGER, schedule.warmup_steps), .fallback = "0", FROM(0),
     .unit = "steps", .meaning = "The rate rises linearly from 0 over this many first steps."},
    {KEY("schedule.metric", CHOICE, schedule.metric), .fallback = "train",
     .choices = "train|validation", .meaning = "plateau: the epoch's loss that is watched."},
    {KEY("schedule.factor", REAL, schedule.factor), .fallback = "0.1", .ranged = true,
     .above = true, .min = 0, .max = 1,
     .meaning = "plateau, step, exponential: factor on the rate; must be given for exponential."},
    {KEY("schedule.patience", INTEGER, schedule.patience), .fallback = "10", FROM(0),
     .unit = "epochs", .meaning = "plateau: epochs without improvement that are tolerated."},
    {KEY("schedule.threshold", REAL, schedule.threshold), .fallback = "1e-4", FROM(0),
     .meaning = "plateau: smallest change that counts as an improvement."},
    {KEY("schedule.threshold_mode", CHOICE, schedule.threshold_mode), .fallback = "rel",
     .choices = "rel|abs", .meaning = "plateau: threshold relative to the best loss, or absolute."},
    {KEY("schedule.cooldown", INTEGER, schedule.cooldown), .fallback = "0", FROM(0),
     .unit = "epochs",
     .meaning = "plateau: epochs after a reduction in which no epoch counts as bad."},
    {KEY("schedule.min_lr", REAL, schedule.min_lr), .fallback = "0", FROM(0),
     .meaning = "plateau, cosine: lowest rate."},
    {KEY("schedule.eps", REAL, schedule.eps), .fallback = "1e-8", FROM(0),
     .meaning = "plateau: smaller changes of the rate are not made."},
    {KEY("schedule.step_size", INTEGER, schedule.step_size), .fallback = "null", FROM(1),
     .unit = "epochs or steps", .nullable = true, .off = 0,
     .derived = "2000 for cyclic; required for step",
     .meaning = "step: epochs between reductions; cyclic: steps of the rising half of a cycle."},
    {KEY("schedule.t_max", INTEGER, schedule.t_max), .fallback = "null", FROM(1), .unit = "epochs",
     .nullable = true, .off = 0, .derived = "train.epochs",
     .meaning = "cosine: epochs until the lowest rate."},
    {KEY("schedule.max_lr", REAL, schedule.max_lr), OFF(0), ABOVE(0),
     .derived = "required for one_cycle and cyclic", .meaning = "one_cycle, cyclic: highest rate."},
    {KEY("schedule.pct_start", REAL, schedule.pct_start), .fallback = "0.3", WITHIN(0, 1),
     .meaning = "one_cycle: part of the run in which the rate rises."},
    {KEY("schedule.div_factor", REAL, schedule.div_factor), .fallback = "25", ABOVE(0),
     .meaning = "one_cycle: max_lr over the first rate."},
    {KEY("schedule.final_div_factor", REAL, schedule.final_div_factor), .fallback = "1e4", ABOVE(0),
     .meaning = "one_cycle: first rate over the last one."},
    {KEY("schedule.mode", CHOICE, schedule.mode), .fallback = "triangular",
     .choices = "triangular|triangular2|exp_range",
     .meaning =
         "cyclic: cycles of one height, halved each cycle, or shrinking by gamma each step."},
    {KEY("schedule.gamma", REAL, schedule.gamma), .fallback = "1", .ranged = true, .above = true,
     .min = 0, .max = 1,
     .meaning = "cyclic with exp_range: factor per step on the height of a cycle."},
    {KEY("schedule.step_size_down", INTEGER, schedule.step_size_down), OFF(0), FROM(1),
     .unit = "steps",
     .meaning = "cyclic: steps of the falling half of a cycle; null: as many as step_size."},

    {KEY("checkpoint.every_epochs", INTEGER, checkpoint.every_epochs), .fallback = "1", FROM(1),
     .unit = "epochs", .meaning = "Epochs between saved states."},
    {KEY("checkpoint.every_minutes", REAL, checkpoint.every_minutes), OFF(0), ABOVE(0),
     .unit = "minutes", .meaning = "Time between states saved inside an epoch; null: none."},
    {KEY("checkpoint.keep_last", INTEGER, checkpoint.keep_last), .fallback = "0", FROM(0),
     .unit = "states", .meaning = "How many of the newest states are kept; 0: all."},
    {KEY("checkpoint.keep_every", INTEGER, checkpoint.keep_every), .fallback = "0", FROM(0),
     .unit = "epochs",
     .meaning = "States of epochs that are multiples of this are kept for good; 0: none."},
    {KEY("checkpoint.best", CHOICE, checkpoint.best), .fallback = "null", .nullable = true,
     .off_text = "", .choices = "train|validation|accuracy|auc|f1",
     .derived = "validation when data.validation is given, else train",
     .meaning = "What decides which state best.h5 points to, and when training stops early: the "
                "epoch's training or validation loss, or, for cubes, a metric of the validation; "
                "null: there is no best.h5."},
    {KEY("checkpoint.background", FLAG, checkpoint.background), .fallback = "true",
     .meaning = "Write states while training goes on, from a copy in the memory of rank 0; false: "
                "training waits for the disk."},
    {KEY("checkpoint.retry_seconds", REAL, checkpoint.retry_seconds), .fallback = "60", ABOVE(0),
     .unit = "seconds",
     .meaning = "Time between tries to write a state that could not be written."},
    {KEY("checkpoint.fall_back_after", INTEGER, checkpoint.fall_back_after), .fallback = "2",
     FROM(0), .unit = "starts",
     .meaning = "When so many starts from a state died before a later one was written, the next "
                "takes the state before it; 0: never."},

    {KEY("run.time_limit", TEXT, run.time_limit), .fallback = "auto",
     .meaning =
         "Wall time of one start: seconds, MM:SS, HH:MM:SS or D-HH:MM:SS; the run then saves "
         "and ends with exit code 75. auto: the end of the batch job, from "
         "FIELDNET_JOB_END or SLURM_JOB_END_TIME where they are set; none: no limit."},
    {KEY("run.time_margin", REAL, run.time_margin), .fallback = "30", FROM(0), .unit = "s",
     .meaning = "Time kept before the limit, beyond the longest step and save so far."},
    {KEY("run.halt_file", TEXT, run.halt_file), .fallback = "halt",
     .meaning = "A file of this name in the run folder stops the run as a signal does, and keeps "
                "it from going on until it is removed."},
    {KEY("run.hang_timeout", REAL, run.hang_timeout), OFF(0), ABOVE(0), .unit = "s",
     .meaning = "A rank that does not get on for so long is named and the job ended; null: wait "
                "for ever. Longer than the longest step, validation and save."},

    {KEY("test.output", TEXT, test.output), .fallback = "outputs",
     .meaning = "Folder of re-assembled fields, or of the tables of predicted cubes; relative to "
                "the run folder."},
    {KEY("test.format", CHOICE, test.format), .fallback = "npy", .choices = "npy|hdf5",
     .meaning = "Format of written fields."},
    {KEY("test.state", TEXT, test.state), OFF(0), .map2map = "load-state",
     .meaning = "State to test; null: checkpoint.h5 of the run folder."},
    {KEY("test.use_ema", FLAG, test.use_ema), .fallback = "false",
     .meaning = "Test the moving average of the weights instead of the weights."},
    {KEY("test.box_size", REAL, test.box_size), OFF(0), ABOVE(0), .unit = "Mpc/h",
     .meaning =
         "Edge of the whole field, for wave numbers of power spectra; null: in units of the box."},
    {KEY("test.write_fields", FLAG, test.write_fields), .fallback = "true",
     .meaning = "Write re-assembled output fields."},
    {KEY("test.spectra", FLAG, test.spectra), .fallback = "true",
     .meaning =
         "Measure power spectra. That takes whole fields in memory; without them, as in "
         "predictions, crops are written as they come and memory does not grow with fields."},
    {KEY("test.tile", INTEGERS, test.tile), OFF(0), FROM(0), .unit = "cells", .derived = "chosen",
     .meaning = "Edge of the crops that test and predict cut, one for all axes or one per axis; 0: "
                "data.crop. When not set, larger ones than data.crop, which need fewer operations "
                "for their margins, where half of the memory is enough and the network's rule of "
                "sizes ensures equal results."},
    {KEY("test.overwrite", FLAG, test.overwrite), .fallback = "false",
     .meaning =
         "Replace fields and tables of an earlier test or prediction; else they are kept and "
         "the command refuses."},
    {KEY("test.without_mean", FLAG, test.without_mean), .fallback = "true",
     .meaning = "Cubes: test a second time with each cube's own mean taken away, which alone tells "
                "the classes apart."},
    {KEY("test.baseline_seeds", INTEGER, test.baseline_seeds), .fallback = "64", FROM(0),
     .unit = "seeds",
     .meaning = "Cubes: training seeds, spread evenly, whose cube means a baseline classifier is "
                "fitted to; 0: no baseline."},
    {KEY("test.bootstrap", INTEGER, test.bootstrap), .fallback = "1000", FROM(0),
     .unit = "replicates",
     .meaning = "Cubes: replicates of the 95 % confidence intervals over seeds; 0: none."},
    {KEY("test.saliency", INTEGER, test.saliency), .fallback = "0", WITHIN(0, 1024),
     .unit = "samples",
     .meaning = "Cubes: samples of each class, spread evenly, whose map of |d logit / d cell| is "
                "written and drawn."},
    {KEY("test.saliency_seeds", TEXTS, test.saliency_seeds), OFF(0),
     .meaning = "Cubes: test seeds, numbers and ranges, for both cubes of which d logit / d cell "
                "is summed over all slices and written."},

    {KEY("compute.backend", CHOICE, compute.backend), .fallback = "cpu",
     .choices = "reference|cpu|cuda|emulated",
     .meaning = "Who computes: plain C, slow and obvious; oneDNN and vector kernels; CUDA; or the "
                "kernels and streams of CUDA emulated on the host, for tests."},
    {KEY("compute.precision", CHOICE, compute.precision), .fallback = "f32",
     .choices = "f32|tf32|bf16|f16",
     .meaning = "Type of activations; weights, statistics, losses and sums stay f32. tf32: all is "
                "kept in f32, but convolutions and matrix products on a GPU round what they "
                "multiply to 10 bits of mantissa. f16: on a GPU, with a loss scale that finds "
                "itself."},
    {KEY("compute.first_layer_f32", FLAG, compute.first_layer_f32), .fallback = "true",
     .meaning = "Keep the input and the first convolution in f32 in a bf16 or f16 run."},
    {KEY("compute.threads", INTEGER, compute.threads), OFF(0), WITHIN(1, 4096), .unit = "threads",
     .map2map = "num-threads",
     .meaning = "Threads per rank; null: the cores available to the rank."},
    {KEY("compute.deterministic", FLAG, compute.deterministic), .fallback = "true",
     .meaning =
         "Only kernels that give the same bits in every run. false allows others, and has no "
         "effect on reference and cpu, which are always deterministic."},
    {KEY("compute.fold_norms", FLAG, compute.fold_norms), .fallback = "true",
     .meaning = "Outside training, make batch norm part of the convolution before it; the results "
                "are those without it up to rounding."},
    {KEY("compute.winograd", CHOICE, compute.winograd), .fallback = "auto", .choices = "auto|no",
     .meaning =
         "Convolutions of kernel 3 and stride 1, and of kernel 4 and stride 2, in f32 by minimal "
         "filtering, with a fraction of the products of a direct sum; rounding errors are two to "
         "seven times larger. auto: where it is faster; no: direct sums everywhere. Only cpu."},
    {KEY("compute.check", FLAG, compute.check), .fallback = "false",
     .meaning = "Fill released memory with NaN and guard buffers, to find defects; slow."},
    {KEY("compute.recompute", CHOICE, compute.recompute), .fallback = "auto",
     .choices = "auto|none|elementwise|all",
     .meaning =
         "What may be computed twice to save memory; results keep their bits. auto: with a "
         "memory_budget all that it takes, without one what lowers the peak for one percent of "
         "the time at most; elementwise: all but convolutions and matrix products; all: those "
         "too. Without a budget the last two make memory as small as they can."},
    {KEY("compute.memory_budget", INTEGER, compute.memory_budget), OFF(0), FROM(1), .unit = "bytes",
     .meaning =
         "Limit for the values of the network (activations and their gradients) of a rank; null: "
         "none. Without parameters, gradients of parameters and scratch."},
    {KEY("compute.pin", CHOICE, compute.pin), .fallback = "auto", .choices = "auto|yes|no",
     .meaning =
         "Keep every thread on a core of its own. auto: where the batch system or mpirun gave this "
         "rank cores of its own, fewer than the machine has; yes: also where the whole machine is "
         "free to use, which harms when two jobs do it. Variables of OpenMP (OMP_PROC_BIND, "
         "OMP_PLACES, GOMP_CPU_AFFINITY) go before."},
    {KEY("compute.graphs", CHOICE, compute.graphs), .fallback = "auto", .choices = "auto|no",
     .meaning = "On a device, record a step's kernels at its second run and replay them from then "
                "on, which takes less time of the processor; results keep their bits."},
    {KEY("compute.share_devices", FLAG, compute.share_devices), .fallback = "false",
     .meaning = "Let several ranks of a node use one device; without it more ranks than devices "
                "are an error."},

    {KEY("report.tensorboard", FLAG, report.tensorboard), .fallback = "true",
     .meaning = "Write TensorBoard event files."},
    {KEY("report.plots", FLAG, report.plots), .fallback = "true",
     .meaning = "Draw slices and power spectra."},
    {KEY("report.verbosity", CHOICE, report.verbosity), .fallback = "info",
     .choices = "quiet|info|detail|debug", .meaning = "How much is printed."},
    {KEY("report.status_interval", REAL, report.status_interval), .fallback = "5", ABOVE(0),
     .unit = "s",
     .meaning = "Time between two writings of status.json, by which fieldnet status sees from "
                "outside how the run gets on."},
};
/* clang-format on */

enum {
  KEY_COUNT = sizeof keys / sizeof keys[0],
  SECTION_COUNT = sizeof sections / sizeof sections[0]
};

int fn_key_count(void) {
  return KEY_COUNT;
}

const fn_key *fn_key_at(int index) {
  return &keys[index];
}

int fn_key_index(const fn_key *key) {
  return (int)(key - keys);
}

const fn_key *fn_key_find(const char *path) {
  for (int i = 0; i < KEY_COUNT; i++)
    if (strcmp(keys[i].path, path) == 0) return &keys[i];
  return NULL;
}

int fn_section_count(void) {
  return SECTION_COUNT;
}

const fn_section *fn_section_at(int index) {
  return &sections[index];
}

const fn_section *fn_section_find(const char *path) {
  for (int i = 0; i < SECTION_COUNT; i++)
    if (strcmp(sections[i].path, path) == 0) return &sections[i];
  return NULL;
}

const char *fn_key_type_text(const fn_key *key) {
  switch (key->type) {
    case FN_KEY_TEXT: return "text";
    case FN_KEY_CHOICE: return "word";
    case FN_KEY_FLAG: return "true or false";
    case FN_KEY_INTEGER: return "integer";
    case FN_KEY_NATURAL: return "integer";
    case FN_KEY_REAL: return "number";
    case FN_KEY_PAIR: return "list of 2 numbers";
    case FN_KEY_INTEGERS: return "integer or list of integers";
    case FN_KEY_TEXTS: return "text or list of texts";
    case FN_KEY_CHOICES: return "word or list of words";
    case FN_KEY_MAPPING: return "mapping";
    case FN_KEY_LIST: return "list";
  }
  return "";
}

/* "a|b|c" -> "a, b, c" after `lead`. */
static void join_choices(const char *choices, const char *lead, char *buffer, size_t size) {
  size_t length = (size_t)snprintf(buffer, size, "%s", lead);
  for (const char *c = choices; *c && length + 3 < size; c++) {
    if (*c == '|') buffer[length++] = ',';
    buffer[length++] = *c == '|' ? ' ' : *c;
  }
  buffer[length] = '\0';
}

char *fn_key_range_text(const fn_key *key, char *buffer, size_t size) {
  buffer[0] = '\0';
  if (key->choices) {
    join_choices(key->choices, "one of ", buffer, size);
  } else if (key->type == FN_KEY_NATURAL) {
    snprintf(buffer, size, "0 to 18446744073709551615");
  } else if (key->ranged && isinf(key->max)) {
    snprintf(buffer, size, "%s %.10g", key->above ? "above" : "at least", key->min);
  } else if (key->ranged && (key->above || key->below)) {
    snprintf(buffer, size, "%s %.10g and %s %.10g", key->above ? "above" : "at least", key->min,
             key->below ? "below" : "at most", key->max);
  } else if (key->ranged) {
    snprintf(buffer, size, "from %.10g to %.10g", key->min, key->max);
  }
  return buffer;
}

const char *fn_key_default_text(const fn_key *key) {
  if (key->derived) return key->derived;
  return strcmp(key->fallback, "null") == 0 ? "none" : key->fallback;
}

/* ---- what a wrong word may have meant ------------------------------------------------------ */

/* Whether `path` lies directly in the section `within`; its last component goes to *name. */
static bool lies_in(const char *path, const char *within, const char **name) {
  const size_t length = strlen(within);
  if (length > 0 && (strncmp(path, within, length) != 0 || path[length] != '.')) return false;
  *name = length > 0 ? path + length + 1 : path;
  return strchr(*name, '.') == NULL;
}

static const char *last_component(const char *path) {
  const char *dot = strrchr(path, '.');
  return dot ? dot + 1 : path;
}

/* Equal but for the case, for - instead of _, and for leading dashes. */
static bool same_word(const char *a, const char *b) {
  while (*a == '-')
    a++;
  for (;; a++, b++) {
    const char x = *a == '-' ? '_' : (char)(*a >= 'A' && *a <= 'Z' ? *a - 'A' + 'a' : *a);
    const char y = *b == '-' ? '_' : *b;
    if (x != y) return false;
    if (x == '\0') return true;
  }
}

const char *fn_key_meant(fn_arena *arena, const char *within, const char *word) {
  const char *names[KEY_COUNT + SECTION_COUNT];
  int count = 0;
  for (int i = 0; i < KEY_COUNT; i++)
    if (lies_in(keys[i].path, within, &names[count])) count++;
  for (int i = 0; i < SECTION_COUNT; i++)
    if (lies_in(sections[i].path, within, &names[count])) count++;
  for (int i = 0; i < count; i++)
    if (same_word(word, names[i])) return names[i];
  for (int i = 0; i < KEY_COUNT; i++)
    if (same_word(word, last_component(keys[i].path))) return keys[i].path;
  for (int i = 0; i < KEY_COUNT; i++)
    if (keys[i].map2map && same_word(word, keys[i].map2map)) return keys[i].path;
  const char *near = fn_text_closest(word, names, count);
  return near ? fn_arena_text(arena, near) : NULL;
}
