"""`completion`: what makes a shell complete commands, options and names of queues."""

from typing import Final

import click
from click.shell_completion import get_completion_class

VARIABLE: Final = "_DARNER_CTL_COMPLETE"  # says to `darner ctl` that a shell asks

# click's scripts complete a program. Here the first word of the program's command line is `ctl`, so the function that
# the shell calls drops it.
_BASH: Final = """\
_darner_ctl() {
    [[ ${COMP_WORDS[1]} == ctl ]] || { COMPREPLY=($(compgen -W ctl -- "${COMP_WORDS[COMP_CWORD]}")); return; }
    local IFS=$'\\n' line
    COMPREPLY=()
    for line in $(%(variable)s=bash_complete COMP_WORDS="${COMP_WORDS[*]:1}" COMP_CWORD=$((COMP_CWORD - 1)) \\
            "$1" ctl 2>/dev/null); do
        case ${line%%%%,*} in
            plain) COMPREPLY+=("${line#*,}") ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
        esac
    done
}
complete -o nosort -F _darner_ctl darner
"""
_ZSH: Final = """\
#compdef darner
_darner_ctl() {
    [[ ${words[2]} == ctl ]] || { compadd ctl; return; }
    local -a answer found
    local kind value help
    answer=("${(@f)$(env COMP_WORDS="${words[2,-1]}" COMP_CWORD=$((CURRENT - 2)) %(variable)s=zsh_complete \\
        ${words[1]} ctl 2>/dev/null)}")
    for kind value help in ${answer}; do
        case $kind in
            plain) [[ $help == _ ]] && found+=("$value") || found+=("${value//:/\\\\:}:$help") ;;
            dir) _path_files -/ ;;
            file) _path_files -f ;;
        esac
    done
    (( ${#found} )) && _describe '' found -U
}
compdef _darner_ctl darner
"""
_FISH: Final = """\
function _darner_ctl
    set -l words (commandline -cpo)
    for line in (env %(variable)s=fish_complete COMP_WORDS=(string join " " $words[2..-1]) \\
            COMP_CWORD=(commandline -t) $words[1] ctl 2>/dev/null)
        set -l parts (string split , $line)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                echo $parts[2]
        end
    end
end
complete --no-files --command darner --condition __fish_use_subcommand --arguments ctl
complete --no-files --command darner --condition "__fish_seen_subcommand_from ctl" --arguments "(_darner_ctl)"
"""
SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@click.command()
@click.argument("shell", type=click.Choice([*SCRIPTS]))
def completion(shell: str) -> None:
    """Print a script that lets a shell complete: source <(darner ctl completion bash)."""
    click.echo(SCRIPTS[shell] % {"variable": VARIABLE}, nl=False)


def answer(group: click.Group, program: str, instruction: str) -> bool:
    """Print what the shell asks for. False: it is no question of a shell."""
    shell, _, what = instruction.partition("_")
    kind = get_completion_class(shell)
    if kind is None or what != "complete":
        return False
    print(kind(group, {}, program, VARIABLE).complete())
    return True


COMMANDS: Final = (completion,)
