# Pushes by Ruby's Net::HTTP.
require "json"
require "net/http"
require "uri"

def connect(url, authority)
  uri = URI(url)
  http = Net::HTTP.new(uri.host, uri.port, nil)
  if uri.scheme == "https"
    http.use_ssl = true
    http.ca_file = authority
  end
  http.start
end

input = JSON.parse($stdin.read.force_encoding("UTF-8"))
$stdout.sync = true
http = nil
input["pushes"].each do |push|
  sleep push["pause_seconds"]
  begin
    http ||= connect(push["url"], input["ca"])
    request = Net::HTTP::Post.new(URI(push["url"]))
    request.set_form_data(push["fields"]) if push["fields"]
    answer = http.request(request)
    puts "#{answer.code} #{answer["X-Push-Id"] || "-"}"
  rescue StandardError => error
    puts "failed #{error.class} #{error.message}".tr("\n", " ")
    http = nil
    next
  end
  next if input["kept"]

  http.finish
  http = nil
end
