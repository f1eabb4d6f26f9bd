# Completion of pipeplug for bash 4 or later.
_pipeplug() {
    local line=${COMP_LINE:0:COMP_POINT} words=() word i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 0)) && [[ -n $line && $line != [[:space:]]* ]]; then
            word=${word:0:${#line}}
            words[${#words[@]} - 1]+=$word
        else
            line=${line#"${line%%[![:space:]]*}"}
            word=${word:0:${#line}}
            words+=("$word")
        fi
        line=${line#"$word"}
    done
    # Bash replaces only what follows its last split.
    local typed=${words[${#words[@]} - 1]}
    typed=${typed%"$2"}
    local IFS=$'\n'
    COMPREPLY=($(COMPLETE=bash _PIPEPLUG_TYPED=$typed pipeplug -- "${words[@]}" 2>/dev/null))
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *[/=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _pipeplug pipeplug
