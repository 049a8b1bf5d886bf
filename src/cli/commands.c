/* The table of commands. */
#include "cli/commands.h"

#include <string.h>

static const fn_command_entry commands[] = {
    {.name = "train",
     .synopsis = "RUN.yaml [--set KEY=VALUE ...]",
     .summary = "train a network, or go on where a run stopped",
     .details =
         "Start under mpirun or srun for more than one rank. States are saved in the run folder; "
         "when it holds checkpoint.h5 the run goes on from there.\n\n"
         "SIGTERM and SIGUSR1 finish the running step, save a state and end all ranks with exit "
         "code 75; the same command then goes on.",
     .examples =
         "fieldnet train run.yaml\n"
         "mpirun -n 4 fieldnet train run.yaml --set train.epochs=100 --set optimizer.lr=1e-4",
     .takes_run = true,
     .function = fn_command_train},
    {.name = "test",
     .synopsis = "RUN.yaml [--set KEY=VALUE ...]",
     .summary = "evaluate a trained network on a set with targets",
     .details = "Prints the losses in normalised and in physical units and the power spectra of "
                "input, output and target, and writes the re-assembled output fields.",
     .examples = "fieldnet test run.yaml\n"
                 "fieldnet test run.yaml --set test.state=run/best.h5 --set test.overwrite=true",
     .takes_run = true,
     .function = fn_command_test},
    {.name = "predict",
     .synopsis = "RUN.yaml [--set KEY=VALUE ...]",
     .summary = "write outputs for inputs without targets",
     .details = "Crops are computed one by one and re-assembled into whole fields. Of cubes "
                "(data.kind: cubes) it writes a table: per cube the mean logit, the probability of "
                "each class and the class, as predictions.csv and, with every slice, as "
                "predictions.h5.",
     .examples = "fieldnet predict run.yaml --set data.test.input=\"new/*.npy\" --set "
                 "test.output=predicted\n"
                 "fieldnet predict run.yaml --set data.cubes.predict=new.h5",
     .takes_run = true,
     .function = fn_command_predict},
    {.name = "check",
     .synopsis = "RUN.yaml [--set KEY=VALUE ...]",
     .summary = "tell everything that can be known without running",
     .details = "Prints files and their pairing, shapes and types, samples and steps, the network "
                "with parameters and operations, memory and checkpoint size. All problems are "
                "listed, and the exit code says whether the run could start. Works under mpirun "
                "too.",
     .examples = "fieldnet check run.yaml\n"
                 "mpirun -n 4 fieldnet check run.yaml --set data.crop=128",
     .takes_run = true,
     .function = fn_command_check},
    {.name = "describe",
     .synopsis = "RUN.yaml [--training] [--size N] [--dot | --json] [--backend NAME] "
                 "[--assume ARCH] [--set KEY=VALUE ...]",
     .summary = "show the network: shapes, parameters, operations, memory",
     .details = "Prints a table with one line per operator, or a graph for Graphviz. Sizes are "
                "those of the data; without data, of data.crop and data.input_pad, or of --size.",
     .examples = "fieldnet describe run.yaml\n"
                 "fieldnet describe run.yaml --dot | dot -Tpdf -o network.pdf\n"
                 "fieldnet describe run.yaml --size 168 --channels 3,3 --training",
     .takes_run = true,
     .option =
         {{"dot", NULL, "print the graph in the DOT language instead of a table"},
          {"json", NULL, "print the table as JSON"},
          {"training", NULL, "list every kernel of a training step instead of the network"},
          {"backend", "NAME", "instead of compute.backend"},
          {"assume", "ARCH",
           "plan a training step for a GPU of this kind (sm_80, sm_90) without having one: "
           "kernels, "
           "layouts, memory, streams, events; exit status 1 if accesses are not ordered"},
          {"size", "N", "cells of the network's input along each axis"},
          {"channels", "IN,OUT", "channels of input and target, where there are no data"},
          {"spatial", "D",
           "spatial axes, where there are no data (default: what the network takes, else 3)"}},
     .function = fn_command_describe},
    {.name = "verify",
     .synopsis = "RUN.yaml REFERENCE.h5 [--factor X] [--rtol X] [--all] [--write OUT.h5] "
                 "[--set KEY=VALUE ...]",
     .summary = "compare with another implementation",
     .details =
         "Loads weights and inputs of the reference file, compares outputs, loss, every gradient "
         "and the weights after some optimizer steps with those stored, and prints the worst "
         "tensor of each group.\n\n"
         "tools/reference-from-pytorch writes such files; docs/verify.md describes them.",
     .examples = "tools/reference-from-pytorch reference.h5 --model vnet --spatial 3 --edge 44\n"
                 "fieldnet verify vnet.yaml reference.h5",
     .takes_run = true,
     .extra_min = 1,
     .extra_max = 1,
     .option = {{"factor", "X", "accepted multiple of the reference's own float32 error (8)"},
                {"rtol", "X", "accept this part of a tensor's largest value instead"},
                {"all", NULL, "print every tensor, not only the worst of each group"},
                {"write", "OUT.h5", "store what was computed in the same layout"}},
     .function = fn_command_verify},
    {.name = "bench",
     .synopsis = "RUN.yaml [--mode MODE] [--steps N] [--size N] [--batch N] [--json OUT] "
                 "[--compare OLD] [--trace OUT] [--set KEY=VALUE ...]",
     .summary = "time steps, operators, reading and communication",
     .details =
         "Times steps and splits them by phase and by operator, beside what the machine can do: "
         "the "
         "same library primitives timed alone, a convolution and a copy in the same process. Start "
         "it under mpirun for several ranks.\n\n"
         "Modes: full takes training data and sums gradients; synthetic takes random numbers; io "
         "only reads; comm only sums gradients, for several train.bucket_bytes; all does all of "
         "them. The default is full where there are data, else synthetic.",
     .examples = "fieldnet bench run.yaml --json before.json\n"
                 "fieldnet bench run.yaml --compare before.json\n"
                 "mpirun -n 4 fieldnet bench run.yaml --mode comm",
     .takes_run = true,
     .option = {{"mode", "MODE", "full, synthetic, io, comm or all"},
                {"steps", "N", "steps that are timed (5)"},
                {"warmup", "N", "steps before those (2)"},
                {"inference", NULL, "time the network's output alone, not training steps"},
                {"synthetic", NULL, "take sizes from the options below even where data are there"},
                {"batch", "N", "samples of a step and rank (train.batch)"},
                {"size", "N", "cells of the network's input along each axis"},
                {"channels", "IN,OUT", "channels of input and target, where there are no data"},
                {"spatial", "D",
                 "spatial axes, where there are no data (default: what the network takes, else 3)"},
                {"all", NULL, "print every kernel, not only the slowest"},
                {"json", "OUT", "also write everything to a file"},
                {"io", NULL,
                 "time the ways of reading a file of cubes (given instead of RUN.yaml) beside "
                 "read(2), --steps times in turns"},
                {"checkpoint", NULL,
                 "time what saving a state costs the steps beside it, --steps turns, in the run "
                 "folder"},
                {"compare", "OLD", "print ratios to the file of an earlier measurement"},
                {"from", "NEW", "measure nothing: compare this file with that of --compare"},
                {"trace", "OUT", "write a timeline for chrome://tracing or Perfetto"},
                {"lockstep", NULL, "take a step per line \"step\" read, for tools/bench-peers"}},
     .function = fn_command_bench},
    {.name = "data",
     .synopsis =
         "stats SET OUT.h5 --snap NNN --seeds RANGES [...]\n"
         "       fieldnet data pack SET OUT.h5 --snap NNN --seeds RANGES [...]\n"
         "       fieldnet data verify FILE.h5 [SET] [--sample K] [...]\n"
         "       fieldnet data inspect FILE ... [--all] [--slice AXIS[,N]] [--png OUT.png]\n"
         "       fieldnet data synth displacement --folder DIR [--files N] [--edge N] ...\n"
         "       fieldnet data synth cubes OUT --seeds RANGES [--edge N] [--layout L] ...",
     .summary = "prepare, check, look at and make field files",
     .details =
         "stats: mean, variance and standard deviation of the raw cubes of a set of simulations, "
         "per snap, from both theories of the training seeds, into an HDF5 file.\n\n"
         "pack: the raw cubes of one snap, or the difference of two, standardised into one "
         "prepared file. A job that was killed goes on when it is started again.\n\n"
         "verify: compare a prepared file with the raw cubes in SET bit for bit, or without SET "
         "with the checksums inside it.\n\n"
         "inspect: type, shape, storage, attributes and, per channel, range, mean and standard "
         "deviation of each file, of every dataset of an HDF5 file; one plane as a picture.\n\n"
         "synth displacement: pairs DIR/lin/NNN.npy and DIR/lpt2/NNN.npy of displacement fields, "
         "first order and first plus second order Lagrangian perturbation theory of one Gaussian "
         "random density of a flat LCDM universe today, in Mpc/h, the same for the same seed.\n\n"
         "synth cubes: Gaussian random potentials, Newtonian and with a chosen difference, as raw "
         "files in folder OUT, or standardised in the prepared file OUT.\n\n"
         "stats, pack, verify and synth cubes share their work over the ranks of mpirun or srun; "
         "results do not depend on their number. docs/cubes.md describes files and options.",
     .examples = "fieldnet data inspect fields/*.npy\n"
                 "fieldnet data inspect file.h5:/phi --slice 0,16 --png slice.png\n"
                 "fieldnet data synth displacement --folder fields --files 8 --edge 64",
     .extra_min = 1,
     .extra_max = 1 << 20,
     .option = {{"snap", "NNN", "snap as in file names; stats takes several, separated by commas"},
                {"seeds", "RANGES", "seeds of the set, as in 0-1999 or 0-9,12"},
                {"train-seeds", "RANGES", "seeds that statistics are computed from, or all"},
                {"pattern", "TEXT",
                 "paths in SET, with {seed}, {theory} and {snap} "
                 "(seed{seed}/{theory}/{theory}_snap{snap}_phi.h5)"},
                {"dataset", "NAME", "dataset in raw files (data)"},
                {"redshift", "Z", "redshift of the snap, one for each; for the record and growth"},
                {"statistics", "WHAT",
                 "pack: a file of stats or of three numbers in npy, "
                 "MEAN,STD, none, or compute (default)"},
                {"layout", "L", "packed (default of pack), original; synth cubes: raw (default)"},
                {"chunk", "C,D,H,W", "chunk shape of the packed dataset, or none (default)"},
                {"compress", "0..9", "gzip level after byte shuffle; 0: none (default)"},
                {"dtype", "f32|f64", "type of prepared cells (f32)"},
                {"remove-mean", NULL, "take away each cube's own mean instead of the common one"},
                {"difference", "A,B",
                 "pack, stats: snap A minus snap B, each divided by its "
                 "growth D(z) (1 + z); synth cubes: one number, rms of the "
                 "difference in units of the potential's (0.01)"},
                {"growth", "TABLE",
                 "for --difference: file with columns z and D, or "
                 "lcdm:OMEGA_M"},
                {"amplitude", "A_S", "primordial amplitude, for the record"},
                {"sample", "K", "verify: so many cubes, spread evenly (all)"},
                {"tolerance", "X", "verify: largest difference allowed (0)"},
                {"all", NULL, "inspect: read every dataset, however many"},
                {"slice", "AXIS[,N]", "inspect: plane N, normal to the axis (0, the middle one)"},
                {"png", "OUT.png", "inspect: draw that plane of the first dataset"},
                {"mean-offset", "X",
                 "synth cubes: difference of the means in units of the "
                 "potential's rms (0)"},
                {"folder", "DIR", "synth displacement: folder to write into"},
                {"files", "N", "synth displacement: pairs of fields to make (1)"},
                {"first", "N", "synth displacement: number of the first pair (0)"},
                {"edge", "N", "synth: cells along each axis (64)"},
                {"box", "L",
                 "edge of the box in Mpc/h; synth displacement 128, synth cubes 320, "
                 "pack: for the record"},
                {"omega-m", "X", "synth: matter density today (0.31)"},
                {"seed", "N", "synth: seed of the random fields (1)"},
                {"force", NULL, "replace files that exist"}},
     .function = fn_command_data},
    {.name = "job",
     .synopsis = "RUN.yaml [--nodes N] [--gpus-per-node N] [--time T] ... [--submit] "
                 "[--set KEY=VALUE ...]",
     .summary = "write, and submit, a batch script for SLURM",
     .details =
         "The script starts the run with srun, one rank per GPU or --ranks-per-node. SLURM sends "
         "SIGUSR1 --warning seconds before the time limit; the run then saves a state and ends "
         "with exit code 75, and the job puts itself back into the queue, or the next job of the "
         "chain takes over, until the last epoch. After a crash the job is started again, "
         "--retries times in a row at most; a mistake in the configuration or the data ends it.\n\n"
         "A site file holds what every script needs on a machine: module loads, exports, #SBATCH "
         "lines.",
     .examples = "fieldnet job run.yaml --nodes 2 --ranks-per-node 4 --time 12:00:00 --submit",
     .takes_run = true,
     .option = {{"nodes", "N", "nodes (1)"},
                {"ranks-per-node", "N", "ranks on each node (as many as GPUs, else 1)"},
                {"gpus-per-node", "N", "GPUs of each node (0)"},
                {"cpus-per-rank", "N", "cores of each rank (the scheduler's default)"},
                {"time", "T", "time limit as SLURM writes it, e.g. 12:00:00 (the partition's)"},
                {"mem", "M", "memory per node as SLURM writes it, e.g. 64G"},
                {"partition", "P", "partition"},
                {"account", "A", "account"},
                {"qos", "Q", "quality of service"},
                {"name", "NAME", "name of the job (the run folder's)"},
                {"warning", "S",
                 "seconds between the signal and the time limit (300, at most a fifth of --time)"},
                {"retries", "N", "crashes in a row after which to give up (3)"},
                {"chain", "N", "N jobs after each other instead of one that is requeued"},
                {"command", "NAME", "train, test or predict (train)"},
                {"launcher", "NAME", "srun or mpirun (srun)"},
                {"mpi", "TYPE", "of srun --mpi (pmix)"},
                {"site", "FILE", "lines for this machine ($FIELDNET_SITE)"},
                {"output", "FILE", "where to write it (job.sbatch in the run folder)"},
                {"submit", NULL, "hand it to sbatch"}},
     .function = fn_command_job},
    {.name = "status",
     .synopsis = "RUNDIR ... [--json] [--watch SECONDS]",
     .summary = "tell how runs get on, from their folders",
     .details =
         "Prints a line per run: epochs and steps done, losses of the last step and the last "
         "epoch, samples per second, time to the end, age of the newest state, and whether it is "
         "running, finished, stopped (start it again to go on), failed, dead (its process is gone "
         "without a word) or was never started. A folder with runs below it, as of a sweep, stands "
         "for all of them.\n\n"
         "Only reads, works while runs are going and on any machine that sees the folders. The "
         "exit code is 9 when a run failed or is dead, else 0.",
     .examples = "fieldnet status runs/*\n"
                 "fieldnet status sweep --watch 10",
     .extra_min = 1,
     .extra_max = 1 << 20,
     .option = {{"json", NULL, "print one JSON object per run, each on a line"},
                {"watch", "SECONDS",
                 "print again every so often, until every run has finished, failed or died"}},
     .function = fn_command_status},
    {.name = "report",
     .synopsis = "RUNDIR ... [-o FILE.html] [--title TEXT] [--force]",
     .summary = "make one HTML page of one run, or of several to compare them",
     .details =
         "Curves of losses, metrics, learning rate and throughput, the configuration, figures and "
         "test results found in the run folders, where the ranks were, states and warnings; of "
         "several runs the curves in one frame, the keys that differ and the best values side by "
         "side. The page needs no other file and no network. Works while runs are going. A folder "
         "with runs below it stands for all of them.",
     .examples = "fieldnet report run\n"
                 "fieldnet report runs/a runs/b --output compare.html",
     .extra_min = 1,
     .extra_max = 1 << 20,
     .option = {{"output", "FILE.html",
                 "where to write it, also -o (report.html in the folder given, or here where "
                 "several are)"},
                {"title", "TEXT", "heading of the page"},
                {"force", NULL, "replace a file that is no such page"}},
     .function = fn_command_report},
    {.name = "sweep",
     .synopsis =
         "plan SWEEP.yaml [--all] [--step-seconds S]\n"
         "       fieldnet sweep run SWEEP.yaml [--group G] [--trials RANGES]\n"
         "       fieldnet sweep job SWEEP.yaml [--cap N] [--time T] ... [--submit]\n"
         "       fieldnet sweep status|best|table|plot SWEEP.yaml [--top N] [--output FILE]\n"
         "       fieldnet sweep ask SWEEP.yaml [--set KEY=VALUE ... | --json VALUES] "
         "[--queue]\n"
         "       fieldnet sweep tell SWEEP.yaml TRIAL --value V [--epoch E | --state STATE]",
     .summary = "train a run many times with other settings, and compare",
     .details =
         "plan: the trials, and what they take: steps, memory, disk, time. Start it under mpirun "
         "for trials on several ranks.\n\n"
         "run: train trials one after another until none is left. Under mpirun or srun the ranks "
         "part into groups of --group, which take trials side by side. A trial that fails is "
         "recorded and the others go on; what was stopped or killed is gone on with by the same "
         "command, also by several at a time. Signals, time limit and halt file as with train.\n\n"
         "job: write a batch script for SLURM, an array of jobs with a task for each trial, with "
         "the options of fieldnet job; --submit hands it to sbatch, once for all trials.\n\n"
         "status, best, table, plot: what has become of the trials so far; the table is CSV, the "
         "plot shows the metric against each parameter and learning curves.\n\n"
         "ask: give a trial to a worker outside, or register one with values chosen outside, and "
         "print it as one JSON object; tell: record what came of it. The answer to a value of an "
         "epoch is 'go', 'stop' (by the rule of the sweep) or 'lost' (the trial is somebody "
         "else's).\n\n"
         "The file has 'run:', the run's file; 'set:', keys of all trials; and 'sweep:' with\n"
         "  parameters: KEY: [VALUE, ...] or KEY: {RANGE: [LOW, HIGH], points: N, when: {KEY: "
         "VALUE}}\n"
         "              for each key that varies; RANGE is uniform, log, integer or log_integer\n"
         "  method:     grid, random, sobol or ask; trials: how many are drawn; seed: of the "
         "draws\n"
         "  seeds:      repeats of each setting\n"
         "  metric:     train, validation, accuracy, auc or f1; direction: minimize or maximize\n"
         "  stop:       none, median or asha, or {rule: R, min_epochs: N, reduction: X, "
         "min_trials: N}\n"
         "  attempts:   failures in a row; lease: seconds of a dead worker; folder: of all "
         "trials\n\n"
         "docs/sweeps.md describes the file, the rules and the store.",
     .examples = "fieldnet sweep plan sweep.yaml\n"
                 "mpirun -n 8 fieldnet sweep run sweep.yaml --group 2\n"
                 "fieldnet sweep best sweep.yaml --top 3",
     .takes_set = true,
     .extra_min = 2,
     .extra_max = 3,
     .option =
         {{"group", "G", "run: ranks that train one trial together (1)"},
          {"trial", "N", "run: this trial only, on all ranks"},
          {"trials", "RANGES", "run: these trials only, as in 0-3,7"},
          {"cap", "N", "job: trials that run at the same time (as many as fit)"},
          {"nodes", "N", "job: nodes of a trial (1)"},
          {"ranks-per-node", "N", "job: ranks on each node (as many as GPUs, else 1)"},
          {"gpus-per-node", "N", "job: GPUs of each node (0)"},
          {"cpus-per-rank", "N", "job: cores of each rank (the scheduler's default)"},
          {"time", "T", "job: time limit as SLURM writes it (the partition's)"},
          {"mem", "M", "job: memory per node as SLURM writes it"},
          {"partition", "P", "job: partition"},
          {"account", "A", "job: account"},
          {"qos", "Q", "job: quality of service"},
          {"name", "NAME", "job: its name (the sweep folder's)"},
          {"warning", "S",
           "job: seconds between the signal and the time limit (300, at most a fifth of --time)"},
          {"retries", "N", "job: crashes of a trial in a row after which to give up (3)"},
          {"launcher", "NAME", "job: srun or mpirun (srun)"},
          {"mpi", "TYPE", "job: of srun --mpi (pmix)"},
          {"site", "FILE", "job: lines for this machine ($FIELDNET_SITE)"},
          {"output", "FILE",
           "job, table, plot: where to write it (job.sbatch or sweep.png in the sweep's "
           "folder; tables to standard output)"},
          {"submit", NULL, "job: hand it to sbatch"},
          {"all", NULL, "plan: print every trial"},
          {"step-seconds", "S", "plan: time of a training step, for the estimate"},
          {"top", "N", "best: settings that are printed (5)"},
          {"json", "VALUES", "ask: values chosen outside, as a JSON object"},
          {"queue", NULL, "ask: only register the values; sweep run will train them"},
          {"lease", "S",
           "ask: seconds after the last word from outside until the trial may "
           "be given to somebody else (never)"},
          {"value", "V", "tell: the metric"},
          {"epoch", "E", "tell: the value is that after epoch E"},
          {"state", "STATE", "tell: the end: finished, failed or released (to be resumed)"},
          {"seconds", "S", "tell: time that the trial took"},
          {"message", "TEXT", "tell: why it failed"}},
     .function = fn_command_sweep},
    {.name = "help",
     .synopsis = "[COMMAND | KEY | SECTION] [--man | --markdown | --completion]",
     .summary = "explain a command or a configuration key",
     .details = "KEY is a configuration key such as data.crop; a section such as data lists all "
                "its keys.",
     .examples = "fieldnet help data.crop\n"
                 "fieldnet help optimizer",
     .extra_max = 1,
     .option = {{"man", NULL, "print the manual page in roff"},
                {"markdown", NULL, "print the reference of all configuration keys in Markdown"},
                {"completion", NULL, "print the completion script for bash"}},
     .function = fn_command_help},
    {.name = "version",
     .synopsis = "",
     .summary = "print the version",
     .details = "",
     .function = fn_command_version},
};

enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

int fn_command_count(void) {
  return COMMAND_COUNT;
}

const fn_command_entry *fn_command_at(int index) {
  return &commands[index];
}

const fn_command_entry *fn_command_find(const char *name) {
  for (int i = 0; i < COMMAND_COUNT; i++)
    if (strcmp(commands[i].name, name) == 0) return &commands[i];
  return NULL;
}

static const fn_exit_code exit_codes[] = {
    {FN_OK, "done"},
    {FN_ERR_INTERNAL, "a defect of fieldnet or of a library below it"},
    {FN_ERR_CONFIG, "the command line, the configuration or the network definition is wrong"},
    {FN_ERR_DATA, "a field file is missing, unreadable, truncated, or of the wrong shape or type"},
    {FN_ERR_DIVERGED, "loss or gradient is not finite"},
    {FN_ERR_CHECKPOINT, "a state cannot be read, written or used"},
    {FN_ERR_MEMORY, "memory is exhausted, or a limit is exceeded"},
    {FN_ERR_VERIFY, "a comparison is over its tolerance"},
    {FN_ERR_UNSUPPORTED, "this build or backend cannot do what was asked"},
    {FN_ERR_LOST,
     "a rank does not answer, or does not get on: start again to go on; of status: a run failed "
     "or is dead"},
    {FN_ERR_DEVICE, "no usable GPU, too few of them, or one that failed"},
    {FN_INTERRUPTED, "stopped by request with the state saved: start again to go on"},
    {FN_HALTED, "likewise, by a halt file: remove it and start again; batch scripts do not"},
};

int fn_exit_code_count(void) {
  return (int)(sizeof exit_codes / sizeof exit_codes[0]);
}

const fn_exit_code *fn_exit_code_at(int index) {
  return &exit_codes[index];
}
