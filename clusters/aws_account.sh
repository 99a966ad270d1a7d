#!/bin/bash
# Make in an AWS account what cluster.yaml names: a key, a security group, an instance profile, a file system.
#   clusters/aws_account.sh REGION ZONES ADDRESSES        such as: us-east-1 us-east-1a,us-east-1b 203.0.113.0/24
# ADDRESSES are those that SSH is let in from. It needs `aws` (the AWS CLI) with your credentials, and uses the default
# network of the region. What is there already under the name inpaint-grid is kept, so the same command may be repeated.
set -eu
[ $# = 3 ] || { sed -n 3p "$0" >&2; exit 2; }
export AWS_DEFAULT_REGION=$1 AWS_PAGER=
zones=$2 addresses=$3 name=inpaint-grid
cd "$(dirname "$(realpath "$0")")"
network=$(aws ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId' --output text)
subnets=$(aws ec2 describe-subnets --query 'Subnets[].SubnetId' --output text \
  --filters "Name=availability-zone,Values=$zones" Name=default-for-az,Values=true)
[ -n "$subnets" ] || { echo "no default subnet of $AWS_DEFAULT_REGION is in $zones; nothing was changed" >&2; exit 2; }

once() { # once ERROR COMMAND…: run a command of AWS; that what it makes is there already (ERROR) is as good
  local said code=$1
  shift
  said=$("$@" 2>&1 >/dev/null) && return
  case $said in *"($code)"*) return 0 ;; esac
  printf '%s\n' "$said" >&2
  return 1
}

key=~/.ssh/$name.pem
keys=$(aws ec2 describe-key-pairs --filters "Name=key-name,Values=$name" --query 'KeyPairs[0].KeyName' --output text)
[ "$keys" != $name ] || [ -e "$key" ] || [ ! -s "$key.new" ] || mv "$key.new" "$key" # it ended between the two
if [ "$keys" = $name ] && [ ! -e "$key" ]; then
  echo "$AWS_DEFAULT_REGION has a key pair $name, whose private half is not in $key; nothing was changed. Put it there," \
    "or remove the key pair: aws ec2 delete-key-pair --region $AWS_DEFAULT_REGION --key-name $name" >&2
  exit 2
elif [ "$keys" != $name ] && [ -e "$key" ]; then
  echo "$key is there, and $AWS_DEFAULT_REGION has no key pair $name; nothing was changed. Move that file away," \
    "or give its public half to AWS: ssh-keygen -y -f $key >$key.pub, then aws ec2 import-key-pair --region" \
    "$AWS_DEFAULT_REGION --key-name $name --public-key-material fileb://$key.pub" >&2
  exit 2
fi
trap '[ $? = 0 ] || echo "not everything could be made: the same command goes on with what is there" >&2' EXIT
if [ "$keys" != $name ]; then
  (umask 077 && mkdir -p ~/.ssh && : >"$key.new") # before the key is made, which AWS shows only once
  aws ec2 create-key-pair --key-name $name --query KeyMaterial --output text >"$key.new"
  mv "$key.new" "$key"
fi
group=$(aws ec2 describe-security-groups --query 'SecurityGroups[0].GroupId' --output text \
  --filters "Name=group-name,Values=$name" "Name=vpc-id,Values=$network")
[ "$group" != None ] || group=$(aws ec2 create-security-group --group-name $name --description $name \
  --vpc-id "$network" --query GroupId --output text)
allow="aws ec2 authorize-security-group-ingress --group-id $group"
once InvalidPermission.Duplicate $allow --protocol tcp --port 22 --cidr "$addresses"
once InvalidPermission.Duplicate $allow --protocol all --source-group "$group"
once EntityAlreadyExists aws iam create-role --role-name $name-head --assume-role-policy-document '{
  "Version": "2012-10-17", "Statement":
    [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}'
aws iam put-role-policy --role-name $name-head --policy-name $name --policy-document file://aws_policy.json
once EntityAlreadyExists aws iam create-instance-profile --instance-profile-name $name-head
roles=$(aws iam get-instance-profile --instance-profile-name $name-head \
  --query 'InstanceProfile.Roles[].RoleName' --output text)
[ "$roles" = $name-head ] ||
  aws iam add-role-to-instance-profile --instance-profile-name $name-head --role-name $name-head
files=$(aws efs describe-file-systems --creation-token $name --query 'FileSystems[0].FileSystemId' --output text)
[ "$files" != None ] || files=$(aws efs create-file-system --creation-token $name --encrypted \
  --query FileSystemId --output text)
until [ "$(aws efs describe-file-systems --file-system-id "$files" \
  --query 'FileSystems[0].LifeCycleState' --output text)" = available ]; do sleep 2; done
for subnet in $subnets; do
  once MountTargetConflict aws efs create-mount-target --file-system-id "$files" --subnet-id "$subnet" \
    --security-groups "$group"
done
echo "for cluster.yaml: security group $group, file system $files"
