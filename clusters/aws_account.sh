#!/bin/bash
# Make in an AWS account, once, what cluster.yaml names: a key, a security group, an instance profile, a file system.
#   clusters/aws_account.sh REGION ZONES ADDRESSES        such as: us-east-1 us-east-1a,us-east-1b 203.0.113.0/24
# ADDRESSES are those that SSH is let in from. It needs `aws` (the AWS CLI) with your credentials, and uses the default
# network of the region.
set -eu
[ $# = 3 ] || { sed -n 3p "$0" >&2; exit 2; }
export AWS_DEFAULT_REGION=$1 AWS_PAGER=
zones=$2 addresses=$3 name=inpaint-grid
cd "$(dirname "$(realpath "$0")")"
network=$(aws ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId' --output text)
subnets=$(aws ec2 describe-subnets --query 'Subnets[].SubnetId' --output text \
  --filters "Name=availability-zone,Values=$zones" Name=default-for-az,Values=true)
[ -n "$subnets" ] || { echo "no default subnet of $AWS_DEFAULT_REGION is in $zones; nothing was made" >&2; exit 2; }
[ ! -e ~/.ssh/$name.pem ] || { echo "there is a key in ~/.ssh/$name.pem already; nothing was made" >&2; exit 2; }

(umask 077 && mkdir -p ~/.ssh &&
  aws ec2 create-key-pair --key-name $name --query KeyMaterial --output text >~/.ssh/$name.pem)
group=$(aws ec2 create-security-group --group-name $name --description $name --vpc-id "$network" \
  --query GroupId --output text)
{
  aws ec2 authorize-security-group-ingress --group-id "$group" --protocol tcp --port 22 --cidr "$addresses"
  aws ec2 authorize-security-group-ingress --group-id "$group" --protocol all --source-group "$group"
  aws iam create-role --role-name $name-head --assume-role-policy-document '{"Version": "2012-10-17", "Statement":
    [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}'
  aws iam put-role-policy --role-name $name-head --policy-name $name --policy-document file://aws_policy.json
  aws iam create-instance-profile --instance-profile-name $name-head
  aws iam add-role-to-instance-profile --instance-profile-name $name-head --role-name $name-head
} >/dev/null
files=$(aws efs create-file-system --encrypted --query FileSystemId --output text)
until [ "$(aws efs describe-file-systems --file-system-id "$files" \
  --query 'FileSystems[0].LifeCycleState' --output text)" = available ]; do sleep 2; done
for subnet in $subnets; do
  aws efs create-mount-target --file-system-id "$files" --subnet-id "$subnet" --security-groups "$group" >/dev/null
done
echo "for cluster.yaml: security group $group, file system $files"
