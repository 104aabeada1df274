# Sourced: files of the recipe's size that take no room, as far as a plan reads them: headers, and a hole where the weights would be.

# sparse FILE: safetensors with the tensors that standard input lists: a line each, name, dtype (F16, F32) and shape
sparse() {
    awk -v bytes_of="$1.bytes" '{
        n = 1
        shape = ""
        for (i = 3; i <= NF; i++) {
            n *= $i
            shape = shape (i > 3 ? "," : "") $i
        }
        size = n * ($2 == "F32" ? 4 : 2)
        header = header (NR > 1 ? "," : "") sprintf("\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%.0f,%.0f]}", $1, $2, shape, at, at + size)
        at += size
    }
    END {
        header = "{" header "}"
        for (length_left = length(header); length_left % 8; length_left++)
            header = header " "
        for (i = 0; i < 8; i++)
            printf "\\%03o", int(length_left / 256 ^ i) % 256
        printf "\n%s", header
        printf "%.0f\n", 8 + length_left + at >bytes_of
    }' >"$1.header"
    { printf "$(head -n 1 "$1.header")"; tail -n +2 "$1.header"; } >"$1"
    truncate -s "$(cat "$1.bytes")" "$1"
    rm "$1.header" "$1.bytes"
}

# neox_tensors LAYERS HIDDEN INTERMEDIATE VOCAB: of GPT-NeoX, in float16
neox_tensors() {
    awk -v L="$1" -v H="$2" -v I="$3" -v V="$4" 'function one(name, a, b) { print name, "F16", a, b }
    BEGIN {
        one("gpt_neox.embed_in.weight", V, H)
        for (i = 0; i < L; i++) {
            p = "gpt_neox.layers." i "."
            split("input_layernorm post_attention_layernorm", norm, " ")
            for (k = 1; k <= 2; k++) {
                one(p norm[k] ".weight", H)
                one(p norm[k] ".bias", H)
            }
            one(p "attention.query_key_value.weight", 3 * H, H)
            one(p "attention.query_key_value.bias", 3 * H)
            one(p "attention.dense.weight", H, H)
            one(p "attention.dense.bias", H)
            one(p "mlp.dense_h_to_4h.weight", I, H)
            one(p "mlp.dense_h_to_4h.bias", I)
            one(p "mlp.dense_4h_to_h.weight", H, I)
            one(p "mlp.dense_4h_to_h.bias", H)
        }
        one("gpt_neox.final_layer_norm.weight", H)
        one("gpt_neox.final_layer_norm.bias", H)
        one("embed_out.weight", V, H)
    }'
}
