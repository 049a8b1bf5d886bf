# Small networks in 1-d, 2-d and 3-d, f32 and bf16, with guarded and poisoned memory on both backends: three steps
# run, the states are finite, the same with and without the checks, and the backends agree.
. "$(dirname "$0")/train_common.sh"
make_data 1

# The values of the cube as fields of one and two axes.
reshaped() { # FOLDER SHAPE
  for field in lin lpt2; do
    mkdir -p "$folder/$1/$field"
    {
      printf '\x93NUMPY\x01\x00\x76\x00'
      printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': ($2), }"
      tail -c $((3 * 4096 * 4)) "$folder/data/$field/000.npy"
    } >"$folder/$1/$field/0.npy"
  done
}
reshaped 1d "3, 4096"
reshaped 2d "3, 64, 64"
mv "$folder/data" "$folder/3d"

write_network() { # NAME AXES PAD
  echo "seed: 3"
  echo "model: {name: $1, options: {width: 4, depth: 1}}"
  echo "data: {train: {input: '$folder/$2/lin/*.npy', target: '$folder/$2/lpt2/*.npy'}, crop: 8, input_pad: $3}"
  echo "train: {epochs: 1, batch: 2, stop_after_steps: 3, log_interval: 1}"
  echo "optimizer: {name: sgd, lr: 1e-2, momentum: 0.9}"
  echo "compute: {threads: 1}"
  echo "report: {plots: false, tensorboard: false}"
}

for axes in 1d 2d 3d; do
  for network in vnet unet; do
    for precision in f32 bf16; do
      name=$network.$axes.$precision
      write_network $network $axes 8 >"$folder/$name.yaml"
      for backend in reference cpu; do
        expect 75 "$name $backend checked" train 1 "$folder/$name.yaml" "$folder/$name.$backend" compute.backend=$backend \
          compute.precision=$precision compute.check=true
      done
      expect 75 "$name cpu" train 1 "$folder/$name.yaml" "$folder/$name.plain" compute.precision=$precision
      same_state "$folder/$name.plain/state_1.h5" "$folder/$name.cpu/state_1.h5" "$name: checks change the result"
      # bf16 has 8 bits, and shifts of batch norm start from 0: their values are sums of gradients that nearly cancel
      [ $precision = f32 ] && tolerance=2e-5 || tolerance=0.2
      "$STATE_COMPARE" "$folder/$name.reference/state_1.h5" "$folder/$name.cpu/state_1.h5" $tolerance >"$folder/log" ||
        fail "$name: the backends differ"
      echo "$name: $(cat "$folder/log")"
    done
    "$STATE_COMPARE" "$folder/$network.$axes.f32.cpu/state_1.h5" "$folder/$network.$axes.bf16.cpu/state_1.h5" 1e-4 >"$folder/log" &&
      fail "$network $axes: bf16 rounds nothing"
  done
done
echo "backends agree, with and without checks"
