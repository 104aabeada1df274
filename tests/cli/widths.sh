#!/bin/sh
# Models of widths that the CUDA backend does not take are refused before anything is loaded, by the module on the shim: which width,
# what it may be, what to do. The CPU takes them.
. "${srcdir:-.}/tests/cli/expect.sh"
shim=$(dirname "$program")/tests/shim
[ -e "$shim/rlhf-hpc-cuda.so" ] || { echo "skipped: tests/shim is not built here"; exit 77; }
LD_LIBRARY_PATH=$shim${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
model=$work/model
mkdir "$model"

# refuses TEXT HIDDEN INTERMEDIATE HEADS HEAD_DIM: of a llama of these
refuses() {
    cat >"$model/config.json" <<END
{"model_type": "llama", "hidden_size": $2, "intermediate_size": $3, "num_attention_heads": $4, "head_dim": $5, "num_hidden_layers": 2,
 "vocab_size": 64, "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0, "eos_token_id": 1}
END
    text="$model: $1; set run.device = \"cpu\""
    set -- --plan --bench tests/bench/llama-1b.cfg -s model.path="$model" -s run.memory_limit=8
    refused 1 "$text" "$@" -s run.device=cuda
    timeout 60 "$program" "$@" -s run.device=cpu >"$work/stdout" 2>&1 && return
    echo "refused on the CPU: $text" && tail -n 3 "$work/stdout"
    failed=1
}

refuses 'hidden_size is 60: the cuda backend needs a multiple of 8 up to 32768' 60 96 4 16
refuses 'intermediate_size is 100: the cuda backend needs a multiple of 8 up to 32768' 64 100 4 16
refuses 'the head size is 20: the cuda backend needs a multiple of 8 up to 256' 80 96 4 20
refuses 'the head size is 264: the cuda backend needs a multiple of 8 up to 256' 64 96 4 264
refuses "the heads' width is 32800: the cuda backend needs a multiple of 8 up to 32768" 64 96 164 200
exit $failed
