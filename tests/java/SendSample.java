import java.io.IOException;
import java.io.PrintStream;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * The platform page's own sample of a send (SmsCodeTest), with its parameters and its {@code ContentType} header, by
 * JDK 17's HttpClient as it comes: HTTP/2 offered. The Content-Type is the one that commons-httpclient adds to a form.
 *
 * <p>{@code java SendSample.java BASE_URL PHONE}: prints the answer and, below it, what the page's sample makes of it: it
 * never looks at the HTTP status, falls over an answer without {@code returnStatus}, and takes {@code "1 "} for a failure.
 */
public final class SendSample {
    public static void main(String[] args) throws IOException, InterruptedException {
        if (args.length != 2) {
            System.err.println("usage: java SendSample.java BASE_URL PHONE");
            System.exit(2);
        }
        Map<String, String> data = new LinkedHashMap<>();
        data.put("appId", "2RYN7CQHL1M00000");
        data.put("appKey", "WVNA4A000000");
        data.put("phone", args[1]);
        data.put("templateId", "540");
        data.put("variables", Integer.toString(73519426));
        String form = data.entrySet().stream()
                .map(field -> field.getKey() + "=" + URLEncoder.encode(field.getValue(), StandardCharsets.UTF_8))
                .collect(Collectors.joining("&"));
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[0] + "/smsApi/verifyCode"))
                .header("ContentType", "application/x-www-form-urlencoded;charset=utf-8")
                .header("Content-Type", "application/x-www-form-urlencoded")
                .POST(HttpRequest.BodyPublishers.ofString(form))
                .build();
        HttpResponse<String> response =
                HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString(StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        out.println(response.body());
        out.println(returnStatus(response.body()).equals("1") ? "成功!" : "失败!");
    }

    /** What the sample's {@code jsonObject.get("returnStatus")} gives: null where there is none. */
    private static String returnStatus(String answer) {
        Matcher field = Pattern.compile("\"returnStatus\"\\s*:\\s*\"([^\"]*)\"").matcher(answer);
        return field.find() ? field.group(1) : null;
    }
}
