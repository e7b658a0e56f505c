#!/bin/bash
# A Ray cluster for rf_notebook inside a slurm job: one node is its head, and all train.
#
#   sbatch docs/clusters/slurm.sh
#
# The job's output says what to write as cluster=; the cluster ends with the job. All nodes need one
# environment with rf-notebook[ray] (activate it here) and a shared home folder, or the token by
# RAY_AUTH_TOKEN_PATH.
#SBATCH --job-name=rf-notebook
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
set -euo pipefail

port=${RF_RAY_PORT:-6379}
client_port=${RF_RAY_CLIENT_PORT:-10001}
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
export RAY_USAGE_STATS_ENABLED=0

if [[ ! -s $RAY_AUTH_TOKEN_PATH ]]; then # whoever has it can run code on the cluster
  (umask 077 && mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")" &&
    python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH")
fi

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1')
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk 'NR == 1 {print $1}')

srun --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --node-ip-address="$address" --port="$port" \
  --ray-client-server-port="$client_port" --include-dashboard=false --block &

for _ in {1..120}; do
  (: < "/dev/tcp/$address/$port") 2> /dev/null && break
  sleep 1
done
(: < "/dev/tcp/$address/$port") # or there is no head, and the job ends here

if ((SLURM_JOB_NUM_NODES > 1)); then
  others=$((SLURM_JOB_NUM_NODES - 1))
  srun --nodes="$others" --ntasks="$others" --exclude="$head" \
    ray start --address="$address:$port" --block &
fi

echo "run_fit(..., devices=\"auto\", cluster=\"$address:$port\")"
echo "from elsewhere, without ports of your own: cluster=\"ray://$address:$client_port\""
echo "token: $RAY_AUTH_TOKEN_PATH"
wait -n # the cluster is over when one of its parts is
