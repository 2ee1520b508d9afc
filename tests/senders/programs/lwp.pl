# Pushes by Perl's LWP.
use strict;
use warnings;
use HTTP::Request::Common qw(POST);
use JSON::PP;
use LWP::UserAgent;
use Time::HiRes qw(sleep);

local $/;
my $input = decode_json(<STDIN>);
my %ssl = $input->{ca} ? (ssl_opts => {SSL_ca_file => $input->{ca}}) : ();
my $agent;
for my $push (@{$input->{pushes}}) {
    sleep $push->{pause_seconds};
    $agent = LWP::UserAgent->new(keep_alive => $input->{kept} ? 1 : 0, %ssl) if !$agent || !$input->{kept};
    my @form;
    if (my $fields = $push->{fields}) {
        my %bytes = map { my $value = $fields->{$_}; utf8::encode($value); ($_ => $value) } keys %$fields;
        @form = ([map { ($_ => $bytes{$_}) } sort keys %bytes]);
    }
    my $answer = $agent->request(POST($push->{url}, @form));
    if (($answer->header('Client-Warning') // '') eq 'Internal response') {
        (my $why = $answer->status_line) =~ s/\n/ /g;
        print "failed $why\n";
        next;
    }
    print $answer->code, ' ', $answer->header('X-Push-Id') // '-', "\n";
}
